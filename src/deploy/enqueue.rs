//! Asking for a deployment: stored first, then the worker is woken.

use super::checkpoint::Checkpoint;
use super::{Agent, Result};
use crate::ids::{AppName, CommitId};
use crate::store::deliveries::{self, NewDelivery, Outcome};
use crate::store::deployments::{self, Deployment, NewDeployment, Trigger, Want};

/// What a delivery asks for.
pub enum Asked {
    Deployment(NewDeployment),
    /// Nothing; the sentence says why.
    Nothing(String),
}

/// Stores a delivery and what it leads to in one transaction. The same signed body again leads to
/// the first one's deployment.
pub async fn delivery(agent: &Agent, delivery: NewDelivery, asked: Asked) -> Result<Outcome> {
    let app = delivery.app.clone();
    let outcome = agent
        .store
        .write(move |db| {
            if let Some(earlier) = deliveries::earlier(db, &delivery)? {
                return Ok(Outcome {
                    reason: Some("this push was delivered before".into()),
                    ..earlier
                });
            }
            match asked {
                Asked::Nothing(reason) => deliveries::insert(db, &delivery, None, Some(reason)),
                Asked::Deployment(new) => {
                    let deployment = deployments::enqueue(db, &new)?;
                    deliveries::insert(db, &delivery, Some(deployment.id), None)
                }
            }
        })
        .await?;
    Checkpoint::Enqueued.reach();
    agent.hub.wake(&app);
    Ok(outcome)
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

/// As [`deployment`], and nothing of it comes from an earlier build.
pub async fn anew(agent: &Agent, new: NewDeployment) -> Result<Deployment> {
    let queued = agent.store.write(move |db| {
        let queued = deployments::enqueue(db, &new)?;
        deployments::set_no_cache(db, &queued.id)?;
        Ok(queued)
    });
    let queued = queued.await?;
    announce(agent, &queued);
    Ok(queued)
}

pub(super) fn announce(agent: &Agent, queued: &Deployment) {
    Checkpoint::Enqueued.reach();
    tracing::info!(app = %queued.app, deployment = %queued.id, trigger = ?queued.trigger, "queued");
    agent.hub.wake(&queued.app);
}
