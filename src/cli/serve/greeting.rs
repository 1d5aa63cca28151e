//! What the agent says at its start to whoever started it.

use crate::certificates;
use crate::config::{self, App, Config, Repo};
use crate::source;

/// Says where the agent listens, where each app is served and how it is deployed, and what is missing.
/// Blocks.
pub fn say(config: &Config, listen: &str) {
    let http = config.proxy.http;
    tracing::info!("webhooks and the API at http://{listen}, apps at {http}");
    let dashboard = address(config, listen);
    tracing::info!(
        "the dashboard is at {dashboard}/; `cutover open` on this machine prints a link that signs in"
    );
    for app in config.apps.values() {
        let (name, url) = (&app.name, config.app_url(app));
        tracing::info!("`{name}` is served at {url}; {}", door(config, app, listen));
    }
    let warnings = config::warnings(config).into_iter();
    let warnings = warnings.chain(source::warnings(config));
    for warning in warnings.chain(certificates::names::warnings(config)) {
        tracing::warn!("{warning}");
    }
}

/// Where browsers and forges find the agent.
fn address(config: &Config, listen: &str) -> String {
    match &config.agent.domain {
        Some(domain) => config.url(domain),
        None => format!("http://{listen}"),
    }
}

/// How a push reaches an app.
fn door(config: &Config, app: &App, listen: &str) -> String {
    let agent = address(config, listen);
    match &app.repo {
        Repo::Local(path) => format!(
            "push to `{}` or to {agent}/git/{}.git",
            path.display(),
            app.name
        ),
        Repo::Http(_) | Repo::Ssh(_) | Repo::Image(_) => {
            format!("webhook: {agent}/hooks/{}", app.name)
        }
    }
}
