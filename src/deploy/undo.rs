//! Leaves the line before the switch: each step is undone, the last one first. The live release has not
//! been touched.

use std::time::Duration;

use super::checkpoint::Checkpoint;
use super::line::{Line, Stop};
use super::waiting::Waiting;
use super::{Agent, Result};
use crate::engine::EngineError;
use crate::ids::DeploymentId;
use crate::state::Event;
use crate::store::deployments::{self, Failure, Goal, Trigger};
use crate::store::{holds, steps};

/// How often a deployment is attempted before it fails: one that crashes the agent each time must not
/// do so for ever.
const ATTEMPTS: u32 = 3;

/// Undoes the deployment's steps and stores how it ended.
pub async fn undo(line: &Line<'_>, stop: Stop) -> Result<()> {
    Checkpoint::Undoing.reach();
    let stop = match stop {
        Stop::Cancelled => why(line).await?,
        stop => stop,
    };
    match &stop {
        Stop::Failed(failure) => {
            let step = failure.step.as_deref().unwrap_or("deployment");
            line.log
                .line(&format!("[{step}] failed: {}", failure.message));
            for tail in &failure.log_tail {
                line.log.line(&format!("  | {tail}"));
            }
        }
        Stop::Cancelled => line.log.line("cancelled"),
        Stop::Superseded(why) | Stop::Skipped(why) => line.log.line(&why.message),
        Stop::Interrupted(why) => line.log.line(&format!("interrupted: {why}")),
        Stop::PutOff => line.log.line("put off: it begins again when it may"),
    }
    if let Err(error) = take_back(line.agent, &line.id).await {
        let error = stuck(&error);
        tracing::error!(app = %line.app.name, deployment = %line.id, "{}", error.message);
        let id = line.id.clone();
        line.record(move |db| deployments::end(db, &id, Event::Stick, Some(&error)))
            .await?;
        return Ok(());
    }
    Checkpoint::Undone.reach();
    tell(line, &stop);
    end(line.agent, &line.id, stop).await?;
    Checkpoint::Ended.reach();
    Ok(())
}

/// Why a deployment was told to stop: who cancels or pins is stored, a stop of the app only notifies.
async fn why(line: &Line<'_>) -> Result<Stop> {
    let id = line.id.clone();
    let read = line.agent.store.read(move |db| {
        let found = deployments::get(db, &id)?;
        let Some(deployment) = found.filter(|it| it.cancelled_by.is_none()) else {
            return Ok(Stop::Cancelled);
        };
        let pinned = holds::stops(db, &deployment)?;
        Ok(pinned.map_or(Stop::PutOff, Stop::Skipped))
    });
    read.await
}

/// One line in the agent's own log, for whoever reads no other.
fn tell(line: &Line<'_>, stop: &Stop) {
    let (app, deployment) = (&line.app.name, &line.id);
    match stop {
        Stop::Failed(failure) => {
            let step = failure.step.as_deref().unwrap_or_default();
            tracing::warn!(%app, %deployment, step, "failed: {}", failure.message);
        }
        Stop::Cancelled => tracing::info!(%app, %deployment, "cancelled"),
        Stop::Superseded(why) => tracing::info!(%app, %deployment, "superseded: {}", why.message),
        Stop::Skipped(why) => tracing::info!(%app, %deployment, "skipped: {}", why.message),
        Stop::Interrupted(why) => tracing::warn!(%app, %deployment, "interrupted: {why}"),
        Stop::PutOff => tracing::info!(%app, %deployment, "put off: it begins again when it may"),
    }
}

/// Stores the rest state, or returns an interrupted deployment to the queue.
pub async fn end(agent: &Agent, id: &DeploymentId, stop: Stop) -> Result<()> {
    let id = id.clone();
    let write = agent.store.write(move |db| {
        // In a rest state already: it was cancelled while it was still queued in the database.
        let Some(deployment) = deployments::get(db, &id)?.filter(|it| !it.state.is_rest()) else {
            return Ok(());
        };
        if let Stop::PutOff = stop {
            deployments::uncount_attempt(db, &id)?;
        }
        match stop {
            Stop::Failed(failure) => {
                if let Some(step) = failure.step.as_deref().and_then(step_named) {
                    steps::failed(db, &id, step, &failure.message)?;
                }
                deployments::end(db, &id, Event::Fail, Some(&failure))?;
            }
            Stop::Cancelled => {
                deployments::end(db, &id, Event::Cancel, None)?;
            }
            Stop::Interrupted(_) if deployment.cancelled_by.is_some() => {
                deployments::end(db, &id, Event::Cancel, None)?;
            }
            Stop::Superseded(why) => {
                deployments::end(db, &id, Event::Supersede, Some(&why))?;
            }
            Stop::Skipped(why) => {
                deployments::end(db, &id, Event::Skip, Some(&why))?;
            }
            Stop::Interrupted(why) if deployment.attempts >= ATTEMPTS => {
                let why = format!("gave up after {ATTEMPTS} attempts; the last one: {why}");
                let failure = Failure::new("interrupted", why);
                deployments::end(db, &id, Event::Fail, Some(&failure))?;
            }
            Stop::Interrupted(_) | Stop::PutOff => {
                match deployments::next_waiting(db, &deployment.app)? {
                    // The live release is bad: an automatic rollback is not superseded.
                    Some(newer)
                        if newer.id > id
                            && deployment.trigger != Trigger::AutoRollback
                            && deployment.goal != Goal::Again =>
                    {
                        let why = format!("the newer deployment `{}` took its place", newer.id);
                        superseded(db, &id, why)?;
                    }
                    _ => {
                        deployments::apply(db, &id, Event::Interrupt)?;
                        steps::forget(db, &id)?;
                    }
                }
            }
        }
        Ok(())
    });
    let outcome = write.await;
    agent.hub.changed();
    outcome
}

fn superseded(db: &rusqlite::Connection, id: &DeploymentId, why: String) -> Result<()> {
    let failure = Failure::new("superseded", why);
    deployments::end(db, id, Event::Supersede, Some(&failure)).map(drop)
}

/// Undoes the steps that the deployment began, the last one first. Waits for as long as Docker is
/// unreachable; what Docker refuses is an error after a few attempts.
pub async fn take_back(agent: &Agent, id: &DeploymentId) -> std::result::Result<(), EngineError> {
    let mut refusals = 0;
    let mut pause = Duration::from_millis(100);
    loop {
        match each_step(agent, id).await {
            Ok(()) => return Ok(()),
            Err(EngineError::Unreachable { .. }) => {
                agent.wait_for_engine_with(Waiting::This(id)).await;
                // An engine may answer a ping and fail everything else.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            Err(error) if refusals == 3 => return Err(error),
            Err(_) => {
                refusals += 1;
                tokio::time::sleep(Duration::from_secs(refusals)).await;
            }
        }
    }
}

async fn each_step(agent: &Agent, id: &DeploymentId) -> std::result::Result<(), EngineError> {
    let of = id.clone();
    let begun = agent.store.read(move |db| steps::of(db, &of)).await?;
    for record in begun.iter().rev() {
        if let Some(step) = step_named(&record.name) {
            super::steps::undo(agent, id, step).await?;
        }
    }
    Ok(())
}

pub(super) fn stuck(error: &EngineError) -> Failure {
    let message = format!("failed to undo the deployment: {error}; remove what is left manually");
    Failure::new("stuck", message)
}

fn step_named(name: &str) -> Option<crate::state::Step> {
    crate::state::Step::ALL
        .into_iter()
        .find(|step| step.as_str() == name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;
    use crate::config::Loaded;
    use crate::engine::Engine;
    use crate::proxy::control::Client;
    use crate::state::Step;
    use crate::store::instances::{self, Instance};
    use crate::store::{Store, apps, fixture};

    /// An engine that answers a ping, and everything else with `answer`; counts the latter.
    fn engine(socket: &Path, answer: &'static str) -> Arc<AtomicU32> {
        let listener = UnixListener::bind(socket).unwrap();
        let count = Arc::new(AtomicU32::new(0));
        let counting = count.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let length = stream.read(&mut request).await.unwrap_or(0);
                if request[..length].starts_with(b"GET /_ping") {
                    let pong =
                        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nOK";
                    let _ = stream.write_all(pong.as_bytes()).await;
                } else {
                    counting.fetch_add(1, Relaxed);
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        });
        count
    }

    /// An agent with a deployment that has started an instance.
    async fn agent(folder: &Path) -> (Agent, DeploymentId) {
        let path = folder.join("deploy.toml");
        let app = "[apps.hello]\nrepo = 'hello.git'\nport = 80\ndomains = ['hello.test']";
        std::fs::write(&path, app).unwrap();
        let config = Loaded::read(&path).unwrap_or_else(|problems| panic!("{problems}"));
        let store = Store::open(folder).unwrap();
        let id = store.write(apps::agent_id).await.unwrap();
        let host = format!("unix://{}", folder.join("docker.sock").display());
        let engine = Engine::docker(host, id.clone(), folder);
        let proxy = Client::new(folder.join("nowhere"));
        let started = store.write(|db| {
            let release = fixture::release(db, 1)?;
            let instance = Instance {
                name: format!("cutover-hello-{}-0", release.deployment),
                app: release.app,
                release: release.id,
                service: crate::ids::ServiceName::web(),
                deployment: release.deployment.clone(),
                endpoint: None,
                mark: None,
                engine: None,
            };
            instances::insert(db, &instance)?;
            steps::started(db, &release.deployment, Step::Start)?;
            Ok(release.deployment)
        });
        let deployment = started.await.unwrap();
        (Agent::new(config, id, store, engine, proxy), deployment)
    }

    #[tokio::test]
    async fn an_engine_that_pings_and_drops_all_else_is_not_asked_without_a_pause() {
        let folder = tempfile::tempdir().unwrap();
        let count = engine(&folder.path().join("docker.sock"), "");
        let (agent, id) = agent(folder.path()).await;
        let undo = take_back(&agent, &id);
        let undone = tokio::time::timeout(Duration::from_secs(1), undo).await;
        assert!(undone.is_err(), "it waits until the engine is back");
        let count = count.load(Relaxed);
        assert!((1..=8).contains(&count), "{count} times in a second");
    }

    #[tokio::test]
    async fn what_an_engine_says_that_cannot_be_read_is_no_absence() {
        let folder = tempfile::tempdir().unwrap();
        let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n{";
        engine(&folder.path().join("docker.sock"), answer);
        let (agent, _) = agent(folder.path()).await;
        let error = agent.engine.list().await.unwrap_err();
        assert!(matches!(error, EngineError::Refused { .. }), "{error}");
    }
}
