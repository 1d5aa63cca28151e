//! Removes the oldest logs, the containers of jobs that have ended, and networks that no app needs; and sees to
//! it that builds have their limits.

use std::sync::Arc;
use std::time::Duration;

use crate::deploy::{Agent, limits, networks, recover, secret_files, session};
use crate::store::now;

const PERIOD: Duration = Duration::from_secs(600);

/// Sweeps at start, and then every ten minutes.
pub async fn sweep(agent: Arc<Agent>) {
    let mut ticks = tokio::time::interval(PERIOD);
    let started = now();
    loop {
        ticks.tick().await;
        match agent.store.remove_old_logs().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(
                count,
                "removed the oldest logs to keep the total under 1 GiB"
            ),
            Err(error) => tracing::warn!(%error, "failed to remove old logs"),
        }
        agent.wait_for_engine().await;
        if let Err(error) = session::end_before(&agent, started).await {
            tracing::warn!(%error, "failed to end what people ran with an earlier agent");
        }
        if let Err(why) = limits::apply(&agent).await {
            tracing::warn!("{why}");
        }
        if let Err(error) = networks::sweep(&agent, None).await {
            tracing::warn!(%error, "failed to remove networks that no app needs");
        }
        if let Err(error) = secret_files::sweep(&agent).await {
            tracing::warn!(%error, "failed to look for secrets of containers that are gone");
        }
        match recover::orphans(&agent).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "removed orphaned containers"),
            Err(error) => tracing::warn!(%error, "failed to look for orphaned containers"),
        }
    }
}
