//! The live release again: new instances of the same images, with the values and the scale of now.

use rusqlite::Connection;

use super::{Agent, Queued, Result, announce, queued_once};
use crate::ids::AppName;
use crate::principal::Requester;
use crate::store::deployments::{self, Deployment, Goal, NewDeployment, Trigger};
use crate::store::idempotency::Once;
use crate::store::{StoreError, apps, releases};

/// Queues it; `None` if nothing is live. One that is waiting already serves for this request too. It
/// takes no waiting push's place, nor does a push take its: a push may turn out to have nothing to do.
pub fn again(
    db: &Connection,
    app: &AppName,
    trigger: Trigger,
    by: Requester,
) -> Result<Option<Deployment>> {
    let Some(live) = apps::serving(db, app)?.live else {
        return Ok(None);
    };
    let Some(release) = releases::get(db, &live)? else {
        return Ok(None);
    };
    if let Some(waiting) = deployments::waiting_again(db, app)? {
        return Ok(Some(waiting));
    }
    let made_by = deployments::get(db, &release.deployment)?;
    let new = NewDeployment {
        app: app.clone(),
        trigger,
        goal: Goal::Again,
        // What the app is told as its ref stays the same.
        git_ref: made_by.and_then(|made_by| made_by.git_ref),
        commit: Some(release.commit),
        message: Some(release.message),
        author: Some(release.author),
        no_cache: false,
        pull: false,
        requested_by: by,
    };
    deployments::enqueue(db, &new).map(Some)
}

/// Queues it on a person's request.
pub async fn restart(
    agent: &Agent,
    app: &AppName,
    trigger: Trigger,
    by: Requester,
    once: Option<Once>,
) -> Result<Queued> {
    let of = app.clone();
    let queue = move |db: &_| {
        let queued = again(db, &of, trigger, by)?.ok_or_else(|| {
            StoreError::Refused(format!("`{of}` has no live release to start again"))
        })?;
        Ok(Queued::New(queued))
    };
    let write = agent.store.write(move |db| queued_once(db, once, queue));
    let queued = write.await?;
    if let Queued::New(stored) = &queued {
        announce(agent, stored);
    }
    Ok(queued)
}
