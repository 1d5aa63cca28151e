//! One worker an app: one deployment running, at most one waiting.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::steps::retire;
use super::{Agent, Result, recover, run};
use crate::config::{self, App};
use crate::ids::AppName;
use crate::state::Event;
use crate::store::deployments::{self, Deployment, Failure, Trigger};
use crate::vital::vital;

/// How often a worker looks without having been woken, should a wake-up ever be missed.
const POLL: Duration = Duration::from_secs(30);

/// The workers, which come and go with the apps of deploy.toml. Ending one in the middle is always
/// safe, as the end of the process is: `recover` takes up what it leaves.
#[derive(Default)]
pub struct Workers(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    running: HashMap<AppName, JoinHandle<()>>,
    /// Apps that get none at the moment.
    held: HashSet<AppName>,
}

impl Workers {
    /// Starts the app's worker, unless it has one.
    pub fn start(&self, agent: &Arc<Agent>, app: &AppName) {
        let mut workers = self.0.lock();
        let has_one = workers.running.get(app).is_some_and(|it| !it.is_finished());
        if !has_one && !workers.held.contains(app) {
            let worker = tokio::spawn(vital(
                format!("the worker of `{app}`"),
                work(agent.clone(), app.clone()),
            ));
            workers.running.insert(app.clone(), worker);
        }
    }

    /// Returns when the app's worker does nothing any more.
    pub async fn end(&self, app: &AppName) {
        let worker = self.0.lock().running.remove(app);
        if let Some(worker) = worker {
            worker.abort();
            let _ = worker.await;
        }
    }

    /// As [`Workers::end`], and none is started until it is released.
    pub async fn hold(&self, app: &AppName) {
        self.0.lock().held.insert(app.clone());
        self.end(app).await;
    }

    pub fn release(&self, app: &AppName) {
        self.0.lock().held.remove(app);
    }

    pub async fn end_all(&self) {
        let workers = std::mem::take(&mut self.0.lock().running);
        workers.values().for_each(JoinHandle::abort);
        for worker in workers.into_values() {
            let _ = worker.await;
        }
    }
}

async fn work(agent: Arc<Agent>, name: AppName) {
    let waker = agent.hub.waker(&name);
    let mut recovered = false;
    loop {
        // As it is now: a deployment keeps to its end what it began with.
        let Some(app) = agent.app(&name).or_else(|| config::unnamed(&name)) else {
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
            Ok(Some(deployment)) if is_lost(&agent, &deployment) => {
                end_lost(&agent, deployment).await
            }
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

/// Whether deploy.toml no longer has the app, and the deployment is not what keeps it alive.
fn is_lost(agent: &Agent, deployment: &Deployment) -> bool {
    agent.app(&deployment.app).is_none() && deployment.trigger != Trigger::AutoRollback
}

async fn end_lost(agent: &Agent, deployment: Deployment) -> Result<()> {
    let Deployment { id, app, .. } = deployment;
    let why = Failure {
        code: "app_not_configured".into(),
        message: format!("`{app}` is not in deploy.toml any more"),
        step: None,
        log_tail: vec![],
    };
    tracing::warn!(%app, deployment = %id, "cancelled: {}", why.message);
    let ended = agent
        .store
        .write(move |db| deployments::end(db, &id, Event::Cancel, Some(&why)).map(drop));
    let ended = ended.await;
    agent.hub.changed();
    ended
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
