//! Queues deployments: stored first, then the app's worker is woken.

use rusqlite::Connection;

use super::{Agent, Moved, Result};
use crate::deploy::checkpoint::Checkpoint;
use crate::ids::{AppName, DeploymentId};
use crate::principal::Requester;
use crate::state::State;
use crate::store::deployments::{self, Deployment, Goal, NewDeployment, Trigger};

/// What a push led to.
pub(super) struct Placed {
    pub deployment: Deployment,
    /// Why the deployment is an earlier one.
    pub reason: Option<String>,
    /// The running deployment that it supersedes.
    older: Option<DeploymentId>,
}

/// The deployment of a pushed commit.
pub(super) fn pushed(app: &AppName, moved: &Moved, no_cache: bool, by: Requester) -> NewDeployment {
    let commit = moved.commit().cloned();
    NewDeployment {
        app: app.clone(),
        trigger: Trigger::Push,
        goal: commit.clone().map_or(Goal::Branch, Goal::Pushed),
        git_ref: Some(moved.git_ref.clone()),
        commit,
        // Only the first line is shown; the rest may be long.
        message: moved.message.as_deref().and_then(first_line),
        author: moved.author.clone(),
        no_cache,
        requested_by: by,
    }
}

fn first_line(message: &str) -> Option<String> {
    message.lines().next().map(str::to_owned)
}

/// Queues a pushed commit, unless a running deployment deploys it already. A push that may be old
/// (`is_new` is false) supersedes nothing.
pub(super) fn place(db: &Connection, new: &NewDeployment, is_new: bool) -> Result<Placed> {
    let running = deployments::running_push(db, &new.app)?.filter(|_| is_new);
    if let Some(running) = &running
        && deploys(running, new)
    {
        let reason = format!("`{}` is deploying this commit already", running.id);
        return Ok(Placed {
            deployment: running.clone(),
            reason: Some(reason),
            older: None,
        });
    }
    Ok(Placed {
        deployment: deployments::enqueue(db, new)?,
        reason: None,
        older: running.map(|running| running.id),
    })
}

/// Whether a deployment has read this very commit from the branch before its push arrived.
fn deploys(running: &Deployment, new: &NewDeployment) -> bool {
    running.commit == new.commit
        && running.git_ref == new.git_ref
        && new.commit.is_some()
        && !new.no_cache
        && (State::Building..State::Draining).contains(&running.state)
}

/// Announces a deployment that has been stored.
pub(super) fn placed(agent: &Agent, placed: &Placed) {
    let deployment = &placed.deployment;
    if placed.reason.is_some() {
        return agent.hub.wake(&deployment.app);
    }
    announce(agent, deployment);
    if let Some(older) = &placed.older {
        supersede(agent, &deployment.app, older, &deployment.id);
    }
}

/// Stops a deployment for a newer push, unless it has switched. A deployment that a person requested is
/// never stopped this way. The newer one is stored by now: if the agent is killed here, it finds the
/// newer one waiting at the next start, and supersedes the older one.
fn supersede(agent: &Agent, app: &AppName, older: &DeploymentId, newer: &DeploymentId) {
    let app = agent.app(app);
    // With `paths` the newer one may have nothing to do: if every push to a busy repository stopped
    // the older one, it would never finish.
    if app.is_some_and(|app| app.deploy.supersede && app.paths.is_none()) {
        agent.hub.supersede(older, newer);
    }
}

/// A person's request for a branch, tag or commit, or for the tip of the app's branch.
pub fn wished(
    app: &AppName,
    name: Option<String>,
    trigger: Trigger,
    by: Requester,
) -> NewDeployment {
    NewDeployment {
        app: app.clone(),
        trigger,
        git_ref: name.clone(),
        goal: name.map_or(Goal::Branch, Goal::Named),
        commit: None,
        message: None,
        author: None,
        no_cache: false,
        requested_by: by,
    }
}

/// Queues what a person requested.
pub async fn deployment(agent: &Agent, new: NewDeployment) -> Result<Deployment> {
    let stored = agent
        .store
        .write(move |db| deployments::enqueue(db, &new))
        .await?;
    announce(agent, &stored);
    Ok(stored)
}

/// Wakes the app's worker for a deployment that has been stored.
pub(in crate::deploy) fn announce(agent: &Agent, queued: &Deployment) {
    Checkpoint::Enqueued.reach();
    tracing::info!(app = %queued.app, deployment = %queued.id, trigger = ?queued.trigger, "queued");
    agent.say_what_is_in_front(&queued.app, &queued.id);
    agent.hub.wake(&queued.app);
}
