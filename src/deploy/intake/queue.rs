//! Queues deployments: stored first, then the app's worker is woken.

use rusqlite::Connection;

use super::{Agent, Moved, Result};
use crate::deploy::checkpoint::Checkpoint;
use crate::ids::AppName;
use crate::principal::Requester;
use crate::state::State;
use crate::store::deployments::{self, Deployment, Goal, NewDeployment, Trigger};
use crate::store::idempotency::{self, Before, Once};
use crate::store::log::Log;

/// What a push led to.
pub(super) struct Placed {
    pub deployment: Deployment,
    /// Why the deployment is an earlier one.
    pub reason: Option<String>,
}

/// The deployment of a pushed commit.
pub(super) fn pushed(app: &AppName, moved: &Moved, by: Requester) -> NewDeployment {
    NewDeployment {
        app: app.clone(),
        trigger: Trigger::Push,
        goal: moved.commit().cloned().map_or(Goal::Branch, Goal::Pushed),
        git_ref: Some(moved.git_ref.clone()),
        // Never the id of a tag object: forges know no status of one.
        commit: moved.points_to.clone(),
        // Only the first line is shown; the rest may be long.
        message: moved.message.as_deref().and_then(first_line),
        author: moved.author.clone(),
        no_cache: false,
        pull: false,
        requested_by: by,
    }
}

fn first_line(message: &str) -> Option<String> {
    message.lines().next().map(str::to_owned)
}

/// Queues a pushed commit, unless a running deployment deploys it already; only the repository can
/// decide that about a push that may be old (`is_new` is false).
pub(super) fn place(db: &Connection, new: &NewDeployment, is_new: bool) -> Result<Placed> {
    let running = deployments::running_push(db, &new.app)?.filter(|_| is_new);
    if let Some(running) = &running
        && deploys(running, new)
    {
        let reason = format!("`{}` is deploying this commit already", running.id);
        return Ok(Placed {
            deployment: running.clone(),
            reason: Some(reason),
        });
    }
    Ok(Placed {
        deployment: deployments::enqueue(db, new)?,
        reason: None,
    })
}

/// Records a push that is not deployed because its commit or its pusher says so.
pub(super) fn skip(db: &Connection, new: &NewDeployment, why: &str) -> Result<Placed> {
    Ok(Placed {
        deployment: deployments::skip(db, new, why)?,
        reason: None,
    })
}

/// Whether a deployment has read this very commit from the branch before its push arrived.
fn deploys(running: &Deployment, new: &NewDeployment) -> bool {
    running.commit == new.commit
        && running.git_ref == new.git_ref
        && new.commit.is_some()
        && !(new.no_cache || new.pull)
        && (State::Building..State::Draining).contains(&running.state)
}

/// Announces a deployment that has been stored.
pub(super) fn placed(agent: &Agent, placed: &Placed) {
    let deployment = &placed.deployment;
    if deployment.state == State::Skipped {
        let why = deployment.error.as_ref().map_or("", |why| &why.message);
        // The reason is in the database too.
        if let Ok(log) = Log::open(&agent.store.log_path(&deployment.id)) {
            log.line(why);
        }
        return agent.hub.changed();
    }
    if placed.reason.is_some() {
        return agent.hub.wake(&deployment.app);
    }
    announce(agent, deployment);
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
        pull: false,
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

/// What became of a request that may carry an `Idempotency-Key`.
pub enum Queued {
    New(Deployment),
    /// Somebody else's request for the same is on its way, and serves for this one too.
    Joined(Deployment),
    /// It came before, and led to this.
    Before(Deployment),
    /// Its key came with another request.
    Refused,
}

/// Queues what a person requested, once for each key.
pub async fn deployment_once(
    agent: &Agent,
    new: NewDeployment,
    once: Option<Once>,
) -> Result<Queued> {
    let queue = move |db: &_| deployments::enqueue(db, &new).map(Queued::New);
    let write = agent.store.write(move |db| queued_once(db, once, queue));
    let queued = write.await?;
    if let Queued::New(stored) = &queued {
        announce(agent, stored);
    }
    Ok(queued)
}

/// What a request with this key led to before.
pub(in crate::deploy) fn before(db: &Connection, once: &Once) -> Result<Option<Queued>> {
    Ok(match idempotency::before(db, once)? {
        Before::Done(id) => deployments::get(db, &id)?.map(Queued::Before),
        Before::Other => Some(Queued::Refused),
        Before::Never => None,
    })
}

/// Runs `queue` unless the request came before, and remembers what it led to.
pub(in crate::deploy) fn queued_once(
    db: &Connection,
    once: Option<Once>,
    queue: impl FnOnce(&Connection) -> Result<Queued>,
) -> Result<Queued> {
    let Some(once) = once else {
        return queue(db);
    };
    if let Some(before) = before(db, &once)? {
        return Ok(before);
    }
    let queued = queue(db)?;
    if let Queued::New(it) | Queued::Joined(it) = &queued {
        idempotency::insert(db, &once, &it.id)?;
    }
    Ok(queued)
}

/// Wakes the app's worker for a deployment that has been stored.
pub(in crate::deploy) fn announce(agent: &Agent, queued: &Deployment) {
    Checkpoint::Enqueued.reach();
    tracing::info!(app = %queued.app, deployment = %queued.id, trigger = ?queued.trigger, "queued");
    agent.say_what_is_in_front(&queued.app, &queued.id);
    agent.hub.wake(&queued.app);
}
