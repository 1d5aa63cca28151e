//! Removes old database rows that are no longer needed.

use std::sync::Arc;
use std::time::Duration;

use crate::deploy::Agent;
use crate::store::prune;

const PERIOD: Duration = Duration::from_secs(3600);

/// Removes old rows at start, and then every hour.
pub async fn prune(agent: Arc<Agent>) {
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        match prune::prune(&agent.store).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "removed rows of old pushes and deployments"),
            Err(error) => tracing::warn!(%error, "failed to remove old rows"),
        }
    }
}
