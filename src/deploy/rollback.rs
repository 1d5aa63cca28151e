//! Rollback: a recorded deployment that starts from a kept release.

use super::checkpoint::Checkpoint;
use super::line::Line;
use super::{Agent, Result, intake, routes};
use crate::ids::{AppName, DeploymentId, ReleaseId};
use crate::principal::Requester;
use crate::state::{Event, Step};
use crate::store::deployments::{self, Deployment, Failure, Goal, NewDeployment, Trigger};
use crate::store::releases::{self, Release};
use crate::store::{StoreError, apps, steps};

const NOTHING_TO_GO_BACK_TO: &str =
    "there is no earlier release to go back to, so it is still what serves";

/// The release that a rollback without a name goes back to: of those that were live and are kept,
/// the one that was live last before this one, but none that failed in its own bake.
fn previous(db: &rusqlite::Connection, app: &AppName) -> Result<Option<Release>> {
    let live = apps::serving(db, app)?.live;
    for release in releases::kept(db, app)? {
        let was_live = release.went_live.is_some() && Some(&release.id) != live.as_ref();
        if was_live && !deployments::was_rolled_back(db, &release.id)? {
            return Ok(Some(release));
        }
    }
    Ok(None)
}

/// Queues a rollback of `app` to what `to` names, or to the release that was live before.
pub async fn ask(
    agent: &Agent,
    app: &AppName,
    to: Option<String>,
    by: Requester,
) -> Result<Deployment> {
    let name = app.clone();
    let queued = agent.store.write(move |db| {
        let release = match &to {
            Some(text) => named(db, &name, text)?,
            None => previous(db, &name)?.ok_or_else(|| {
                StoreError::Refused(format!("`{name}` has no earlier release to roll back to"))
            })?,
        };
        if apps::serving(db, &name)?.live.as_ref() == Some(&release.id) {
            let id = &release.id;
            return Err(StoreError::Refused(format!(
                "the release `{id}` is live already"
            )));
        }
        deployments::enqueue(db, &back_to(&name, &release, Trigger::Rollback, by))
    });
    let queued = queued.await?;
    intake::announce(agent, &queued);
    Ok(queued)
}

/// Finds a kept release by its own id, the id of its deployment, or its image's tag.
fn named(db: &rusqlite::Connection, app: &AppName, text: &str) -> Result<Release> {
    // A renamed app has images under its former name.
    let tag = match text.rsplit_once(':') {
        Some((image, tag)) if image.starts_with("cutover/") => tag,
        _ => text,
    };
    let deployment: Option<DeploymentId> = tag.parse().ok();
    // A deployment that was itself a rollback stands for the release that it restored.
    let of_deployment = match &deployment {
        Some(id) => deployments::get(db, id)?.and_then(|found| found.release),
        None => None,
    };
    let release: Option<ReleaseId> = tag.parse().ok().or(of_deployment);
    let mut kept = releases::kept(db, app)?
        .into_iter()
        .filter(|found| found.went_live.is_some());
    let found = kept.find(|found| match &release {
        Some(id) => found.id == *id,
        None => {
            let mut images = found.services.iter().map(|service| service.image.as_str());
            images
                .any(|image| image == text || image.rsplit_once(':').is_some_and(|it| it.1 == tag))
        }
    });
    found.ok_or_else(|| {
        StoreError::Refused(format!(
            "`{}` does not name a release of `{app}` that was live and is still kept",
            text.escape_debug()
        ))
    })
}

fn back_to(app: &AppName, release: &Release, trigger: Trigger, by: Requester) -> NewDeployment {
    NewDeployment {
        app: app.clone(),
        trigger,
        goal: Goal::Release(release.id.clone()),
        git_ref: None,
        commit: Some(release.commit.clone()),
        message: Some(release.message.clone()),
        author: Some(release.author.clone()),
        no_cache: false,
        requested_by: by,
    }
}

/// Ends a deployment whose bake failed, and queues the rollback in the same transaction. Where there
/// is none the deployment has failed, and its release is still what serves.
pub async fn automatic(line: &Line<'_>, failure: Failure) -> Result<()> {
    let (id, app, failed) = (line.id.clone(), line.app.name.clone(), failure.clone());
    let log = line.log.clone();
    let queued = line
        .record(move |db| {
            let Some(back) = previous(db, &app)? else {
                let message = format!("{}; {NOTHING_TO_GO_BACK_TO}", failed.message);
                log.line(&message);
                let failed = Failure { message, ..failed };
                steps::failed(db, &id, Step::Bake, &failed.message)?;
                deployments::end(db, &id, Event::Fail, Some(&failed))?;
                return Ok(None);
            };
            deployments::end(db, &id, Event::RollBack, Some(&failed))?;
            let new = back_to(&app, &back, Trigger::AutoRollback, Requester::Agent);
            let queued = deployments::enqueue(db, &new)?;
            // Logged before the rest state, because a reader that follows the log stops there.
            log.line(&format!("rolled back by `{}`", queued.id));
            Ok(Some(queued))
        })
        .await?;
    Checkpoint::Ended.reach();
    let (app, deployment, why) = (&line.app.name, &line.id, failure.message);
    match queued {
        Some(queued) => {
            tracing::warn!(%app, %deployment, by = %queued.id, "rolled back: {why}");
            // The old release is still warm: it need not wait for the rollback's own steps.
            if let Err(error) = routes::publish(line.agent).await {
                tracing::warn!(%app, %deployment, %error, "the old release takes over with the rollback's switch");
            }
            intake::announce(line.agent, &queued);
        }
        None => tracing::error!(%app, %deployment, "failed: {why}; {NOTHING_TO_GO_BACK_TO}"),
    }
    Ok(())
}
