//! One worker per app: one deployment running, at most one waiting.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::steps::retire;
use super::waiting::Waiting;
use super::{Agent, Result, images, newcomers, recover, run};
use crate::config::{self, App};
use crate::ids::AppName;
use crate::state::Event;
use crate::store::apps;
use crate::store::deployments::{self, Deployment, Failure, Trigger};
use crate::store::instances::{self, Instance};
use crate::vital::vital;

/// How often a worker checks the queue without a wake-up, in case one is missed.
const POLL: Duration = Duration::from_secs(30);

/// The first pause after a recovery that failed, which doubles up to the longest.
const RECOVER: Duration = Duration::from_secs(1);
const LONGEST_RECOVER: Duration = Duration::from_secs(15);

/// The workers, which come and go with the apps of deploy.toml. Ending one midway is always safe, as is
/// the end of the process: `recover` continues what it leaves unfinished.
#[derive(Default)]
pub struct Workers(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    running: HashMap<AppName, JoinHandle<()>>,
    /// Apps whose worker must not be started at the moment.
    held: HashSet<AppName>,
}

impl Workers {
    /// Starts the app's worker, unless it is running.
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

    /// Ends the app's worker; returns when it has stopped.
    pub async fn end(&self, app: &AppName) {
        let worker = self.0.lock().running.remove(app);
        if let Some(worker) = worker {
            worker.abort();
            let _ = worker.await;
        }
    }

    /// As [`Workers::end`], and no worker is started for the app until [`Workers::release`].
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
    let (mut recovered, mut failures) = (false, 0);
    // Whether images may be left that nothing needs.
    let mut tidy = true;
    let mut tidied = agent.hub.tidied();
    // What was told that it waits for the start of the app.
    let mut told = None;
    loop {
        // The configuration as it is now; a deployment keeps the one that it began with.
        let Some(app) = agent.app(&name).or_else(|| config::unnamed(&name)) else {
            return;
        };
        if !recovered {
            recovered = recover(&agent, &app, &mut failures).await;
            continue;
        }
        // A wake-up between the check and the wait is not lost.
        let woken = waker.notified();
        let of = name.clone();
        let next = agent
            .store
            .read(move |db| {
                let next = deployments::next_in_queue(db, &of)?;
                let is_stopped = apps::stopped(db, &of)?.is_some();
                Ok(if is_stopped {
                    (None, next)
                } else {
                    (next, None)
                })
            })
            .await;
        let next = next.map(|(next, held)| {
            let held = held.map(|held| held.id);
            if let Some(id) = held.as_ref().filter(|_| held != told) {
                agent.say(
                    id,
                    &format!("`{name}` is stopped: waiting for `cutover start {name}`"),
                );
            }
            told = held;
            next
        });
        let outcome = match next {
            Ok(Some(deployment)) if is_lost(&agent, &deployment) => {
                end_lost(&agent, deployment).await
            }
            Ok(Some(_)) if agent.engine.ping().await.is_err() => {
                agent.wait_for_engine_with(Waiting::NextOf(&name)).await;
                // A newer one may have taken its place meanwhile.
                continue;
            }
            Ok(Some(deployment)) => {
                tidy = true;
                let running = run::run(&agent, &app, &deployment);
                newcomers::beside(&agent, &app, Some(&deployment.id), running).await
            }
            Ok(None) => {
                let asked = agent.hub.tidied();
                tidy |= std::mem::replace(&mut tidied, asked) != asked;
                left_over(&agent, &app, &mut tidy).await;
                let _ = tokio::time::timeout(POLL, woken).await;
                continue;
            }
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::error!(app = %name, %error, "failed to record a deployment");
            recovered = false;
        }
    }
}

/// Whether the app is no longer in deploy.toml and the deployment is not a rollback that keeps it
/// serving.
fn is_lost(agent: &Agent, deployment: &Deployment) -> bool {
    agent.app(&deployment.app).is_none() && deployment.trigger != Trigger::AutoRollback
}

async fn end_lost(agent: &Agent, deployment: Deployment) -> Result<()> {
    let Deployment { id, app, .. } = deployment;
    let why = Failure {
        code: "app_not_configured".into(),
        message: format!("`{app}` is no longer in deploy.toml"),
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

/// Retires instances that nothing needs: a deployment leaves the old release warm for a waiting rollback,
/// which may have been cancelled or have failed. Then removes the images that were theirs; `tidy` says
/// whether there may be any.
async fn left_over(agent: &Agent, app: &App, tidy: &mut bool) {
    let name = app.name.clone();
    let left = agent.store.write(move |db| {
        let left = retire::mark(db, &name)?;
        let is_of = |it: &Instance| it.app == name;
        Ok((left, instances::retiring(db)?.iter().any(is_of)))
    });
    match left.await {
        Ok((left, _)) if left > 0 => {
            tracing::info!(app = %app.name, count = left, "stopping instances that no rollback needs");
            agent.retiring.notify_one();
        }
        Ok((_, false)) if *tidy => {
            *tidy = false;
            if let Err(error) = images::tidy(agent, app).await {
                tracing::warn!(app = %app.name, %error, "failed to remove old images");
            }
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(app = %app.name, %error, "failed to retire old instances"),
    }
}

/// Cleans up after the previous run of this worker; false if it has to be retried. On a full disk it fails
/// for as long as that is full, which is said once.
async fn recover(agent: &Agent, app: &App, failures: &mut u32) -> bool {
    let error = match newcomers::beside(agent, app, None, recover::app(agent, app)).await {
        Ok(()) => {
            if std::mem::take(failures) > 0 {
                tracing::info!(app = %app.name, "recovered");
            }
            return true;
        }
        Err(error) => error,
    };
    match *failures {
        0 => tracing::error!(app = %app.name, %error, "failed to recover; retrying"),
        _ => tracing::debug!(app = %app.name, %error, "failed to recover again"),
    }
    let pause = RECOVER.saturating_mul(1 << (*failures).min(16));
    *failures = failures.saturating_add(1);
    tokio::time::sleep(pause.min(LONGEST_RECOVER)).await;
    false
}
