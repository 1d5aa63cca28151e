//! Asking for a deployment: stored first, then the worker is woken.

pub mod pending;

use rusqlite::Connection;

use super::checkpoint::Checkpoint;
use super::{Agent, Result};
use crate::ids::{AppName, CommitId, DeploymentId};
use crate::state::State;
use crate::store::StoreError;
use crate::store::deliveries::{self, NewDelivery, Outcome};
use crate::store::deployments::{self, Deployment, Goal, NewDeployment, Trigger};
use crate::store::pending_pushes::{self, PendingPush};
use crate::store::pushes::{self, Seen};

/// What a delivery asks for.
pub enum Asked {
    /// And why not what else was pushed with it.
    Deployment(NewDeployment, Option<String>),
    /// Nothing; the sentence says why.
    Nothing(String),
}

/// Stores a delivery and what it leads to in one transaction. A push that was counted before leads to
/// what it led to then.
pub async fn delivery(agent: &Agent, delivery: NewDelivery, asked: Asked) -> Result<Outcome> {
    let app = delivery.app.clone();
    let stored = agent.store.write(move |db| store(db, &delivery, &asked));
    let (outcome, older) = stored.await?;
    Checkpoint::Enqueued.reach();
    if let (Some(older), Some(newer)) = (older, &outcome.deployment) {
        supersede(agent, &app, &older, newer);
    }
    agent.hub.wake(&app);
    Ok(outcome)
}

/// Gives what the delivery led to, and the running deployment whose place that takes.
fn store(
    db: &Connection,
    delivery: &NewDelivery,
    asked: &Asked,
) -> Result<(Outcome, Option<DeploymentId>)> {
    let (new, left) = match asked {
        Asked::Deployment(new, left) => (new, left),
        Asked::Nothing(reason) => {
            if let Some(earlier) = deliveries::earlier(db, delivery)? {
                return Ok((before(earlier.outcome), None));
            }
            pushes::moved(db, delivery)?;
            let stored = deliveries::insert(db, delivery, None, Some(reason.clone()))?;
            return Ok((stored, None));
        }
    };
    let mut moves = delivery.moves.iter();
    let Some(push) = moves.find(|push| new.git_ref.as_ref() == Some(&push.git_ref)) else {
        return Err(StoreError::Refused("the delivery lacks its push".into()));
    };
    let seen = match pushes::seen(db, delivery, push)? {
        Seen::Before(outcome) => return Ok((before(outcome), None)),
        seen => seen,
    };
    let is_new = matches!(seen, Seen::New);
    if is_new {
        pushes::moved(db, delivery)?;
    }
    let running = deployments::running_push(db, &new.app)?;
    let (deployment, older, reason) = match running {
        Some(running) if is_new && deploys(&running, new) => {
            let reason = format!("`{}` deploys this commit already", running.id);
            (running.id, None, Some(reason))
        }
        running => {
            // What may be an old push stops nothing.
            let older = running.filter(|_| is_new).map(|running| running.id);
            (deployments::enqueue(db, new)?.id, older, left.clone())
        }
    };
    let outcome = deliveries::insert(db, delivery, Some(deployment.clone()), reason)?;
    if is_new {
        pushes::insert(db, &delivery.app, push, &outcome.delivery, &deployment)?;
    }
    Ok((outcome, older))
}

fn before(earlier: Outcome) -> Outcome {
    Outcome {
        reason: Some("this push was delivered before".into()),
        ..earlier
    }
}

/// Whether a deployment has read this very commit from the branch before its push was delivered.
fn deploys(running: &Deployment, new: &NewDeployment) -> bool {
    running.commit == new.commit
        && running.git_ref == new.git_ref
        && new.commit.is_some()
        && (State::Building..State::Draining).contains(&running.state)
}

/// Stops a deployment for a newer push, unless it has switched. What a person asked for is never
/// stopped: only pushes are looked for. The newer one is stored by now: killed here, the agent finds
/// it waiting at the next start, and the older one superseded by it.
fn supersede(agent: &Agent, app: &AppName, older: &DeploymentId, newer: &DeploymentId) {
    let app = agent.app(app);
    // With `paths` the newer one may have nothing to do: stopped by every push to a busy repository,
    // the older one would never get through.
    if app.is_some_and(|app| app.deploy.supersede && app.paths.is_none()) {
        agent.hub.supersede(older, newer);
    }
}

/// A push to a repository on this machine, handed over by its hook.
pub fn pushed(app: &AppName, git_ref: &str, commit: CommitId) -> NewDeployment {
    NewDeployment {
        app: app.clone(),
        trigger: Trigger::Push,
        goal: Goal::Pushed(commit.clone()),
        git_ref: Some(git_ref.to_owned()),
        commit: Some(commit),
        message: None,
        author: None,
        no_cache: false,
    }
}

/// A person's wish for a branch, tag or commit, or for the tip of the app's branch.
pub fn wished(app: &AppName, name: Option<String>, trigger: Trigger) -> NewDeployment {
    NewDeployment {
        app: app.clone(),
        trigger,
        git_ref: name.clone(),
        goal: name.map_or(Goal::Branch, Goal::Named),
        commit: None,
        message: None,
        author: None,
        no_cache: false,
    }
}

pub async fn deployment(agent: &Agent, new: NewDeployment) -> Result<Deployment> {
    let stored = agent.store.write(move |db| queue(db, &new));
    Ok(told(agent, stored.await?))
}

/// As [`deployment`], for each app that a push is for which git took: all of them in one transaction,
/// in which the push is forgotten.
pub(super) async fn pending(
    agent: &Agent,
    new: Vec<NewDeployment>,
    push: PendingPush,
) -> Result<Vec<Deployment>> {
    let stored = agent.store.write(move |db| {
        pending_pushes::delete(db, &push)?;
        new.iter()
            .map(|new| queue(db, new))
            .collect::<Result<Vec<_>>>()
    });
    let each = stored.await?.into_iter();
    Ok(each.map(|stored| told(agent, stored)).collect())
}

/// Gives the deployment, and the running one whose place it takes.
fn queue(db: &Connection, new: &NewDeployment) -> Result<(Deployment, Option<Deployment>)> {
    let older = match new.trigger {
        Trigger::Push => deployments::running_push(db, &new.app)?,
        _ => None,
    };
    Ok((deployments::enqueue(db, new)?, older))
}

fn told(agent: &Agent, (queued, older): (Deployment, Option<Deployment>)) -> Deployment {
    if let Some(older) = older {
        supersede(agent, &queued.app, &older.id, &queued.id);
    }
    announce(agent, &queued);
    queued
}

pub(super) fn announce(agent: &Agent, queued: &Deployment) {
    Checkpoint::Enqueued.reach();
    tracing::info!(app = %queued.app, deployment = %queued.id, trigger = ?queued.trigger, "queued");
    agent.hub.wake(&queued.app);
}
