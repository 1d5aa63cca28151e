//! The rollback of a release that its bake has found bad. First the old one gets the requests, then
//! everything else: what the bad one said at last, and the rollback's own steps.

use std::time::Duration;

use futures_util::future::join_all;

use super::{back_to, earlier, live};
use crate::deploy::bake::Proof;
use crate::deploy::checkpoint::Checkpoint;
use crate::deploy::line::Line;
use crate::deploy::{Result, intake, routes, warm};
use crate::engine::Status;
use crate::ids::ReleaseId;
use crate::principal::Requester;
use crate::state::{Event, Step};
use crate::store::deployments::{self, Deployment, Failure, Trigger};
use crate::store::instances;
use crate::store::releases::Release;
use crate::store::{apps, steps};

const NOTHING_TO_GO_BACK_TO: &str =
    "there is no earlier release to go back to, so it is still what serves";
/// How many of the bad release's last lines are told, and how long the engine may take to tell them.
const TAIL: usize = 20;
const TELL: Duration = Duration::from_secs(5);
/// How long the engine may take to tell whether the old release still runs: requests fail meanwhile.
const LOOK: Duration = Duration::from_millis(500);

/// Ends a deployment whose bake failed, and goes back to the release before. Where there is none the
/// deployment has failed, and its release is still what serves.
pub async fn automatic(line: &Line<'_>, release: &Release, proof: &Proof) -> Result<()> {
    let failure = &proof.failure;
    let (queued, is_warm) = decide(line, failure).await?;
    Checkpoint::Ended.reach();
    let (app, deployment, why) = (&line.app.name, &line.id, &failure.message);
    match &queued {
        Some(queued) => {
            // The old release is still warm: it need not wait for the rollback's own steps.
            match routes::publish(line.agent).await {
                Ok(()) if !is_warm => {
                    tracing::warn!(%app, %deployment, by = %queued.id, "rolled back: {why}");
                }
                Ok(()) => {
                    let ms = proof.at.elapsed().as_millis() as u64;
                    tracing::warn!(%app, %deployment, by = %queued.id, ms, "rolled back: {why}");
                    line.log.line(&format!(
                        "[bake] the release before gets every request again, {ms} ms after this was found"
                    ));
                }
                Err(error) => {
                    tracing::warn!(%app, %deployment, by = %queued.id, "rolled back: {why}");
                    tracing::warn!(%app, %deployment, %error, "the old release takes over with the rollback's switch");
                }
            }
        }
        None => tracing::error!(%app, %deployment, "failed: {why}; {NOTHING_TO_GO_BACK_TO}"),
    }
    tell(line, release, proof).await;
    if let Some(queued) = queued {
        line.log.line(&format!("rolled back by `{}`", queued.id));
        intake::announce(line.agent, &queued);
    }
    Ok(())
}

/// Stores how the deployment ended and queues the rollback, in one transaction.
/// The second value is whether the release that it goes back to still runs.
async fn decide(line: &Line<'_>, failure: &Failure) -> Result<(Option<Deployment>, bool)> {
    let app = line.app.name.clone();
    let warm = line.agent.store.read(move |db| warm::of(db, &app)).await?;
    let (warm, stopped) = running(line, warm.map(|warm| warm.release)).await?;
    // A release whose image is gone cannot be started; one that runs need not be.
    let images = match &warm {
        Some(_) => None,
        None => line.agent.engine.image_ids().await.ok(),
    };
    let has_images = move |release: &Release| {
        let mut services = release.services.iter();
        let is_there = |id: &String| images.as_ref().is_none_or(|images| images.contains(id));
        services.all(|service| is_there(&service.image_id))
    };
    let (id, app, failed) = (line.id.clone(), line.app.name.clone(), failure.clone());
    let log = line.log.clone();
    let decided = line.record(move |db| {
        let Some(back) = previous(db, &app, warm.as_ref(), has_images)? else {
            let message = format!("{}; {NOTHING_TO_GO_BACK_TO}", failed.message);
            log.line(&message);
            let failed = Failure { message, ..failed };
            steps::failed(db, &id, Step::Bake, &failed.message)?;
            deployments::end(db, &id, Event::Fail, Some(&failed))?;
            return Ok((None, false));
        };
        deployments::end(db, &id, Event::RollBack, Some(&failed))?;
        for name in &stopped {
            instances::set_stopped(db, name)?;
        }
        let new = back_to(&app, &back, Trigger::AutoRollback, Requester::Agent);
        // For the table in which the warm release takes over: it needs no commit of its own.
        apps::next_generation(db, 0)?;
        let is_warm = warm == Some(back.id);
        Ok((Some(deployments::enqueue(db, &new)?), is_warm))
    });
    decided.await
}

/// The warm release if anything of it runs, and its instances that do not. If the engine does not tell,
/// they run.
async fn running(
    line: &Line<'_>,
    warm: Option<ReleaseId>,
) -> Result<(Option<ReleaseId>, Vec<String>)> {
    let Some(release) = warm else {
        return Ok((None, Vec::new()));
    };
    let (agent, of) = (line.agent, release.clone());
    let read = agent.store.read(move |db| instances::warm(db, &of, None));
    let mut all = read.await?;
    all.retain(|it| it.endpoint.is_some());
    let runs = all.iter().map(async |it| {
        let ours = it.ours();
        let status = tokio::time::timeout(LOOK, agent.engine.status(&ours));
        !matches!(status.await, Ok(Ok(Status::Exited(..) | Status::Missing)))
    });
    let runs = join_all(runs).await;
    let all = all.into_iter().zip(runs);
    let (running, stopped): (Vec<_>, Vec<_>) = all.partition(|(_, runs)| *runs);
    let stopped = stopped.into_iter().map(|(it, _)| it.name).collect();
    Ok(((!running.is_empty()).then_some(release), stopped))
}

/// The release to go back to: the warm one, or else the last that can be started.
fn previous(
    db: &rusqlite::Connection,
    app: &crate::ids::AppName,
    warm: Option<&ReleaseId>,
    has_images: impl Fn(&Release) -> bool,
) -> Result<Option<Release>> {
    let Some(live) = live(db, app)? else {
        return Ok(None);
    };
    let mut earlier = earlier(db, &live)?;
    let is_warm = |release: &Release| Some(&release.id) == warm;
    let found = earlier.iter().position(is_warm);
    let found = found.or_else(|| earlier.iter().position(has_images));
    Ok(found.map(|found| earlier.swap_remove(found)))
}

/// Adds the bad release's last lines to why the deployment ended. Whoever follows its log waits for
/// them, since the line has not been left yet.
async fn tell(line: &Line<'_>, release: &Release, proof: &Proof) {
    let known = &proof.failure.log_tail;
    if !known.is_empty() {
        for text in known {
            line.log.line(&format!("  | {text}"));
        }
        return;
    }
    let (agent, id) = (line.agent, line.id.clone());
    let told = tokio::time::timeout(TELL, async {
        let instance = match &proof.instance {
            Some(instance) => instance.clone(),
            None => {
                let of = release.id.clone();
                let read = agent.store.read(move |db| instances::of_release(db, &of));
                read.await.ok()?.into_iter().next()?
            }
        };
        agent.engine.log_tail(&instance.ours(), TAIL).await.ok()
    });
    let Ok(Some(tail)) = told.await else { return };
    let tail = line.log.masked(tail);
    for text in &tail {
        line.log.line(&format!("  | {text}"));
    }
    let write = agent
        .store
        .write(move |db| deployments::set_tail(db, &id, tail));
    if let Err(error) = write.await {
        tracing::warn!(deployment = %line.id, %error, "its last lines are not recorded");
    }
}
