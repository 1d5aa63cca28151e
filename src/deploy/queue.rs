//! One worker an app: one deployment running, at most one waiting.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::steps::retire;
use super::{Agent, recover, run};
use crate::config::App;
use crate::ids::AppName;
use crate::store::deployments;
use crate::vital::vital;

/// How often a worker looks without having been woken, should a wake-up ever be missed.
const POLL: Duration = Duration::from_secs(30);

/// The workers, which come and go with the apps of deploy.toml. Ending one in the middle is always
/// safe, as the end of the process is: `recover` takes up what it leaves.
#[derive(Default)]
pub struct Workers(Mutex<HashMap<AppName, JoinHandle<()>>>);

impl Workers {
    /// Starts the app's worker, unless it has one.
    pub fn start(&self, agent: &Arc<Agent>, app: &AppName) {
        let mut workers = self.0.lock();
        if workers.get(app).is_none_or(JoinHandle::is_finished) {
            let worker = tokio::spawn(vital(
                format!("the worker of `{app}`"),
                work(agent.clone(), app.clone()),
            ));
            workers.insert(app.clone(), worker);
        }
    }

    /// Returns when the app's worker does nothing any more.
    pub async fn end(&self, app: &AppName) {
        let worker = self.0.lock().remove(app);
        if let Some(worker) = worker {
            worker.abort();
            let _ = worker.await;
        }
    }

    pub async fn end_all(&self) {
        let workers = std::mem::take(&mut *self.0.lock());
        workers.values().for_each(JoinHandle::abort);
        for worker in workers.into_values() {
            let _ = worker.await;
        }
    }
}

/// Starts a worker for each app that has none.
pub fn start(agent: &Arc<Agent>) {
    for app in agent.in_force().config.apps.keys() {
        agent.workers.start(agent, app);
    }
}

async fn work(agent: Arc<Agent>, name: AppName) {
    let waker = agent.hub.waker(&name);
    let mut recovered = false;
    loop {
        // As it is now: a deployment keeps to its end what it began with.
        let Some(app) = agent.app(&name) else {
            return;
        };
        if !recovered {
            recovered = recover(&agent, &app).await;
            continue;
        }
        // A wake-up between the look and the wait is kept for the wait.
        let woken = waker.notified();
        let of = name.clone();
        let next = agent
            .store
            .read(move |db| deployments::next_waiting(db, &of))
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
            tracing::error!(app = %name, %error, "a deployment could not be written down");
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
