//! One worker an app: one deployment running, at most one waiting.

use std::sync::Arc;
use std::time::Duration;

use super::steps::retire;
use super::{Agent, recover, run};
use crate::config::App;
use crate::store::deployments;

/// How often a worker looks without having been woken, should a wake-up ever be missed.
const POLL: Duration = Duration::from_secs(30);

/// Starts the workers. Dropping them, or the process, is always safe: `recover` takes up what they
/// leave.
pub fn start(agent: &Arc<Agent>) -> tokio::task::JoinSet<()> {
    let mut workers = tokio::task::JoinSet::new();
    for app in agent.config.apps.values().cloned() {
        workers.spawn(work(agent.clone(), app));
    }
    workers
}

async fn work(agent: Arc<Agent>, app: App) {
    let Some(waker) = agent.hub.waker(&app.name) else {
        return;
    };
    let mut recovered = false;
    loop {
        if !recovered {
            recovered = recover(&agent, &app).await;
            continue;
        }
        // A wake-up between the look and the wait is kept for the wait.
        let woken = waker.notified();
        let name = app.name.clone();
        let next = agent
            .store
            .read(move |db| deployments::next_waiting(db, &name))
            .await;
        let outcome = match next {
            Ok(Some(deployment)) => {
                agent.wait_for_engine().await;
                run::run(&agent, &app, &deployment).await
            }
            Ok(None) => {
                left_over(&agent, &app).await;
                let _ = tokio::time::timeout(POLL, woken).await;
                continue;
            }
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::error!(app = %app.name, %error, "a deployment could not be written down");
            recovered = false;
        }
    }
}

/// A deployment leaves the old release warm for a rollback that waits; one that was cancelled or
/// failed has not taken it.
async fn left_over(agent: &Agent, app: &App) {
    match retire::old_instances(agent, &app.name).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(app = %app.name, count, "stopped what no rollback wants"),
        Err(error) => tracing::warn!(app = %app.name, %error, "cannot stop what is left over yet"),
    }
}

/// Cleans up after the last life of this worker; false where it has to be tried again.
async fn recover(agent: &Agent, app: &App) -> bool {
    match recover::app(agent, app).await {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(app = %app.name, %error, "cannot recover yet; trying again");
            tokio::time::sleep(Duration::from_secs(1)).await;
            false
        }
    }
}
