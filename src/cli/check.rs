//! `cutover check`: reads deploy.toml and reports every mistake in it.

use clap::Args;

use super::client::{Client, view};
use super::{Error, Global, configuration, print};
use crate::config::{self, Config};

/// Check deploy.toml and report every mistake in it
#[derive(Debug, Args)]
pub struct Check {}

/// Reads the configuration and changes nothing. What is allowed but probably not intended is a warning
/// on stderr, and not a failure.
pub async fn run(_: Check, global: &Global) -> Result<(), Error> {
    let (path, config) = configuration::load(global)?;
    let warnings = crate::config::warnings(&config).into_iter();
    let warnings = warnings.chain(crate::source::warnings(&config));
    let warnings = warnings.chain(crate::certificates::names::warnings(&config));
    for warning in warnings.chain(not_kept(&config).await) {
        print::error(format_args!("Warning: {warning}"));
    }
    let apps = match config.apps.len() {
        1 => "1 app".to_owned(),
        n => format!("{n} apps"),
    };
    print::line(format_args!("`{}` is valid: {apps}", path.display()));
    Ok(())
}

/// What the file says that Cutover keeps and, if an agent runs here, it does not.
async fn not_kept(config: &Config) -> Vec<String> {
    let client = Client::local(&config.agent.data_dir);
    let mut all = Vec::new();
    for (app, configured) in &config.apps {
        if configured.run.missing([].into_iter()).is_empty() {
            continue;
        }
        let path = format!("/api/v1/apps/{}/secrets", view::segment(app.as_str()));
        let Ok(answer) = client.get(&path).await else {
            // No agent, or one that does not know the app yet.
            continue;
        };
        let kept = answer["items"].as_array().into_iter().flatten();
        let kept = kept.filter_map(|it| it["name"].as_str());
        let missing = configured.run.missing(kept);
        all.extend(missing.into_iter().map(|name| config::not_kept(app, name)));
    }
    all
}
