//! Follows deploy.toml while the agent runs.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::config::Loaded;
use crate::deploy::{Agent, queue, routes};

/// On each SIGHUP the configuration is read again; what names a listener waits for the next start.
pub async fn reload(agent: Arc<Agent>, path: PathBuf) {
    let Ok(mut hang_up) = signal(SignalKind::hangup()) else {
        return;
    };
    while hang_up.recv().await.is_some() {
        let loaded = match Loaded::read(&path) {
            Ok(loaded) => loaded,
            Err(problems) => {
                tracing::error!("the configuration was not reloaded: {problems}");
                continue;
            }
        };
        let published = routes::reload(&agent, loaded).await;
        queue::start(&agent);
        match published {
            Ok(()) => tracing::info!("reloaded `{}`", path.display()),
            Err(error) => tracing::error!(%error, "failed to publish the routes"),
        }
    }
}
