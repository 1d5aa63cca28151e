//! Keeps the engine's build cache below what deploy.toml allows it.

use std::sync::Arc;
use std::time::Duration;

use crate::deploy::Agent;

const PERIOD: Duration = Duration::from_secs(600);
/// How long to wait for a moment in which nothing is built.
const AGAIN: Duration = Duration::from_secs(5);
/// How long the engine may take; builds wait meanwhile.
const DEADLINE: Duration = Duration::from_secs(60);

pub async fn cache(agent: Arc<Agent>) {
    loop {
        let Some(bound) = agent.in_force().config.docker.build_cache.clone() else {
            tokio::time::sleep(PERIOD).await;
            continue;
        };
        let Some(idle) = agent.slots.all() else {
            tokio::time::sleep(AGAIN).await;
            continue;
        };
        let shrink = agent.engine.shrink_build_cache(bound.size, bound.age);
        match tokio::time::timeout(DEADLINE, shrink).await {
            Ok(Ok(0)) => {}
            Ok(Ok(bytes)) => tracing::info!(bytes, "removed what is too much of the build cache"),
            Ok(Err(error)) => tracing::warn!(%error, "failed to shrink the build cache"),
            Err(_) => tracing::warn!("the engine does not finish shrinking its build cache"),
        }
        drop(idle);
        tokio::time::sleep(PERIOD).await;
    }
}
