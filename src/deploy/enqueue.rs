//! Asking for a deployment: stored first, then the worker is woken.

use rusqlite::Connection;

use super::checkpoint::Checkpoint;
use super::state::State;
use super::{Agent, Result};
use crate::ids::{AppName, CommitId, DeploymentId};
use crate::store::StoreError;
use crate::store::deliveries::{self, NewDelivery, Outcome};
use crate::store::deployments::{self, Deployment, NewDeployment, Trigger, Want};
use crate::store::pushes::{self, Seen};

/// What a delivery asks for.
pub enum Asked {
    Deployment(NewDeployment),
    /// Nothing; the sentence says why.
    Nothing(String),
}

/// Stores a delivery and what it leads to in one transaction. A push that was counted before leads to
/// what it led to then.
pub async fn delivery(agent: &Agent, delivery: NewDelivery, asked: Asked) -> Result<Outcome> {
    let app = delivery.app.clone();
    let stored = agent.store.write(move |db| store(db, &delivery, &asked));
    let outcome = stored.await?;
    Checkpoint::Enqueued.reach();
    agent.hub.wake(&app);
    Ok(outcome)
}

fn store(db: &Connection, delivery: &NewDelivery, asked: &Asked) -> Result<Outcome> {
    let new = match asked {
        Asked::Deployment(new) => new,
        Asked::Nothing(reason) => {
            if let Some(earlier) = deliveries::earlier(db, delivery)? {
                return Ok(before(earlier.outcome));
            }
            pushes::moved(db, delivery)?;
            return deliveries::insert(db, delivery, None, Some(reason.clone()));
        }
    };
    let mut moves = delivery.moves.iter();
    let Some(push) = moves.find(|push| new.git_ref.as_ref() == Some(&push.git_ref)) else {
        return Err(StoreError::Refused("the delivery lacks its push".into()));
    };
    let seen = match pushes::seen(db, delivery, push)? {
        Seen::Before(outcome) => return Ok(before(outcome)),
        seen => seen,
    };
    let is_new = matches!(seen, Seen::New);
    if is_new {
        pushes::moved(db, delivery)?;
    }
    let (deployment, reason) = match on_its_way(db, new)? {
        Some(id) if is_new => {
            let reason = format!("`{id}` deploys this commit already");
            (id, Some(reason))
        }
        _ => (deployments::enqueue(db, new)?.id, None),
    };
    let outcome = deliveries::insert(db, delivery, Some(deployment.clone()), reason)?;
    if is_new {
        pushes::insert(db, &delivery.app, push, &outcome.delivery, &deployment)?;
    }
    Ok(outcome)
}

fn before(earlier: Outcome) -> Outcome {
    Outcome {
        reason: Some("this push was delivered before".into()),
        ..earlier
    }
}

/// The deployment that has read this very commit from the branch before its push was delivered.
fn on_its_way(db: &Connection, new: &NewDeployment) -> Result<Option<DeploymentId>> {
    let running = deployments::running_push(db, &new.app)?;
    let same = |running: &Deployment| {
        running.commit == new.commit
            && running.git_ref == new.git_ref
            && new.commit.is_some()
            && (State::Building..State::Draining).contains(&running.state)
    };
    Ok(running.filter(same).map(|running| running.id))
}

/// A push to a repository on this machine, handed over by its hook.
pub fn pushed(app: &AppName, git_ref: &str, commit: CommitId) -> NewDeployment {
    NewDeployment {
        app: app.clone(),
        trigger: Trigger::Push,
        want: Want::Pushed(commit.clone()),
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
        want: name.map_or(Want::Branch, Want::Named),
        commit: None,
        message: None,
        author: None,
        no_cache: false,
    }
}

pub async fn deployment(agent: &Agent, new: NewDeployment) -> Result<Deployment> {
    let queued = agent
        .store
        .write(move |db| deployments::enqueue(db, &new))
        .await?;
    announce(agent, &queued);
    Ok(queued)
}

pub(super) fn announce(agent: &Agent, queued: &Deployment) {
    Checkpoint::Enqueued.reach();
    tracing::info!(app = %queued.app, deployment = %queued.id, trigger = ?queued.trigger, "queued");
    agent.hub.wake(&queued.app);
}
