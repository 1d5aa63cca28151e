//! Leaving the line before the switch: everything it made is taken away again, in reverse, and the
//! live release was never touched.

use std::time::Duration;

use super::checkpoint::Checkpoint;
use super::line::{Line, Stop};
use super::{Agent, Result};
use crate::engine::EngineError;
use crate::ids::DeploymentId;
use crate::state::Event;
use crate::store::deployments::{self, Failure, Trigger};
use crate::store::{StoreError, instances, steps};

/// How often a deployment is begun before it is given up: one that takes the agent down each time
/// must not do so for ever.
const ATTEMPTS: u32 = 3;

/// Undoes, and stores how it ended.
pub async fn undo(line: &Line<'_>, stop: Stop) -> Result<()> {
    Checkpoint::Undoing.reach();
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
    }
    if let Err(error) = take_away(line.agent, &line.id).await {
        let error = stuck(&error);
        tracing::error!(app = %line.app.name, deployment = %line.id, "{}", error.message);
        let id = line.id.clone();
        line.record(move |db| deployments::end(db, &id, Event::Stick, Some(&error)))
            .await?;
        return Ok(());
    }
    Checkpoint::Undone.reach();
    end(line.agent, &line.id, stop).await?;
    Checkpoint::Ended.reach();
    Ok(())
}

/// Stores the rest state, or puts an interrupted deployment back into the queue.
pub async fn end(agent: &Agent, id: &DeploymentId, stop: Stop) -> Result<()> {
    let id = id.clone();
    let write = agent.store.write(move |db| {
        // At rest already: it was cancelled while it still counted as queued.
        let Some(deployment) = deployments::get(db, &id)?.filter(|it| !it.state.is_rest()) else {
            return Ok(());
        };
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
            Stop::Interrupted(_) => match deployments::next_waiting(db, &deployment.app)? {
                // What is live is bad: the way back from it makes room for nobody.
                Some(newer) if newer.id != id && deployment.trigger != Trigger::AutoRollback => {
                    let why = format!("the newer deployment `{}` took its place", newer.id);
                    superseded(db, &id, why)?;
                }
                _ => {
                    deployments::apply(db, &id, Event::Interrupt)?;
                    steps::forget(db, &id)?;
                }
            },
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

/// Removes every container that the deployment made and forgets their addresses. Waits for as long
/// as Docker is away; an answer of Docker's that it cannot is an error after a few tries.
pub async fn take_away(agent: &Agent, id: &DeploymentId) -> std::result::Result<(), EngineError> {
    let mut refusals = 0;
    loop {
        match try_take_away(agent, id).await {
            Ok(()) => return Ok(()),
            Err(EngineError::Unreachable { .. }) => agent.wait_for_engine().await,
            Err(error) if refusals == 3 => return Err(error),
            Err(_) => {
                refusals += 1;
                tokio::time::sleep(Duration::from_secs(refusals)).await;
            }
        }
    }
}

async fn try_take_away(agent: &Agent, id: &DeploymentId) -> std::result::Result<(), EngineError> {
    for found in agent.engine.list().await? {
        if found.deployment.as_ref() == Some(id) {
            agent.engine.remove(&found.name).await?;
        }
    }
    let id = id.clone();
    let forget = agent.store.write(move |db| {
        let made = instances::all(db)?
            .into_iter()
            .filter(|instance| instance.deployment == id);
        made.into_iter()
            .try_for_each(|instance| instances::delete(db, &instance.name))
    });
    forget
        .await
        .map_err(|error: StoreError| EngineError::Stopped(error.to_string()))
}

pub(super) fn stuck(error: &EngineError) -> Failure {
    let message = format!("failed to remove what it made: {error}; remove it by hand");
    Failure::new("stuck", message)
}

fn step_named(name: &str) -> Option<crate::state::Step> {
    crate::state::Step::ALL
        .into_iter()
        .find(|step| step.as_str() == name)
}
