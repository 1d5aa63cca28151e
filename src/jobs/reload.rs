//! Reloads deploy.toml on SIGHUP.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::deploy::Agent;
use crate::deploy::reload::{self, Reload};
use crate::principal::Requester;

/// Reloads the configuration on each SIGHUP, as `cutover reload` does.
pub async fn reload(agent: Arc<Agent>) {
    let Ok(mut hang_up) = signal(SignalKind::hangup()) else {
        return;
    };
    while hang_up.recv().await.is_some() {
        // The kernel lets only the agent's own user and root send it.
        let uid = rustix::process::geteuid().as_raw();
        match reload::reload(&agent, false, Requester::Local { uid }).await {
            Ok(reload) => log(&reload),
            Err(error) => tracing::error!("failed to reload the configuration: {error}"),
        }
    }
}

fn log(reload: &Reload) {
    let file = &reload.file;
    let keys = reload.changes.iter().map(|change| change.key.as_str());
    let changed = keys.collect::<Vec<_>>().join(" ");
    match changed.is_empty() {
        true => tracing::info!("reloaded `{file}`: no setting has changed"),
        false => tracing::info!(changed, "reloaded `{file}`"),
    }
    for key in &reload.needs_restart {
        tracing::warn!("`{key}` takes effect after a restart of the agent and its proxy");
    }
}
