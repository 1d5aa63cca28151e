//! Stop what is no longer live, in the background, and remove the images that are not kept.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

use crate::deploy::checkpoint::Checkpoint;
use crate::deploy::line::{Done, Line};
use crate::deploy::routes::{self, PublishError};
use crate::deploy::steps::start;
use crate::deploy::{Agent, Result, output, secret_files};
use crate::engine::EngineError;
use crate::ids::AppName;
use crate::state::Step;
use crate::store::deployments::Goal;
use crate::store::instances::{self, Instance};
use crate::store::releases;
use crate::store::volumes::{self, Volume};
use crate::store::{apps, deployments, images};

/// The drain deadline for an app that is not in deploy.toml.
const DRAIN: Duration = Duration::from_secs(30);

/// Hands the old release's instances over to the background: an app may take its whole grace to stop,
/// and the next deployment does not wait for that.
pub async fn retire(line: &Line<'_>) -> Result<()> {
    let app = line.app.name.clone();
    let count = line.begin(Step::Retire, move |db| mark(db, &app)).await?;
    line.agent.retiring.notify_one();
    old_images(line.agent, &line.app.name, line.app.deploy.keep_releases).await?;
    Checkpoint::Effected(Step::Retire).reach();
    let detail = match count {
        0 => "there is no old instance to stop".to_owned(),
        1 => "1 old instance is stopped in the background".to_owned(),
        count => format!("{count} old instances are stopped in the background"),
    };
    line.log.line(&format!("[retire] {detail}"));
    line.note(Step::Retire, Done::new((), detail));
    Ok(())
}

/// Retires every instance of the app that belongs neither to its live release nor to the one that a
/// waiting rollback goes back to; returns how many.
pub fn mark(db: &Connection, app: &AppName) -> Result<usize> {
    let live = apps::serving(db, app)?.live;
    let warm = match deployments::next_waiting(db, app)?.map(|next| next.goal) {
        Some(Goal::Release(id)) => Some(id),
        _ => None,
    };
    instances::retire(db, app, [live.as_ref(), warm.as_ref()])
}

/// Stops and removes a retiring instance, then forgets it. With `hurry`, it gets no more time to stop.
pub async fn instance(
    agent: &Agent,
    instance: &Instance,
    hurry: &CancellationToken,
) -> std::result::Result<(), EngineError> {
    // It may be coming back: a repair that was begun while its release was live ends first.
    drop(agent.tend.repairs.write().await);
    let of = instance.release.clone();
    let release = agent.store.read(move |db| releases::get(db, &of)).await?;
    let service = release.as_ref();
    let service = service.and_then(|release| release.service(&instance.service));
    let grace = service.map_or(Duration::ZERO, |it| it.settings.stop_grace);
    // A process takes no requests.
    if service.is_none_or(|it| it.port.is_some()) {
        leave(agent, &instance.app).await?;
    }
    let serving = routes::targets(&routes::routed(agent).await);
    if start::serves(agent, instance, &serving).await? {
        let why = "the proxy sends requests to it: the database is an old copy";
        return Err(EngineError::Stopped(why.to_owned()));
    }
    let (engine, ours) = (&agent.engine, instance.ours());
    engine.keep_running(&ours, false).await?;
    tokio::select! {
        stopped = engine.stop(&ours, grace) => stopped?,
        () = hurry.cancelled() => engine.stop(&ours, Duration::ZERO).await?,
    }
    Checkpoint::Stopped.reach();
    output::keep(agent, instance).await;
    keep_volumes(agent, instance).await?;
    engine.remove_without_volumes(&ours).await?;
    let name = instance.name.clone();
    let deleted = agent.store.write(move |db| instances::delete(db, &name));
    deleted.await?;
    Ok(secret_files::sweep(agent).await?)
}

/// Takes what is retiring out of the routes, where it was warm for a bake, and waits for the requests
/// that it still has.
async fn leave(agent: &Agent, app: &AppName) -> std::result::Result<(), EngineError> {
    let left = async {
        routes::publish(agent).await?;
        let name = app.clone();
        let serving = agent.store.read(move |db| apps::serving(db, &name));
        let before = serving.await?.generation;
        let limit = agent.app(app).map_or(DRAIN, |app| app.deploy.drain);
        let drained = agent.proxy.drain(app.as_str(), before, limit, limit);
        Ok::<_, PublishError>(drained.await.map(drop)?)
    };
    let why = |error| EngineError::Stopped(format!("it may still get requests: {error}"));
    left.await.map_err(why)
}

/// Writes down the anonymous volumes of an instance that is about to be removed: what the app has stored
/// there stays for as long as its release is kept.
async fn keep_volumes(agent: &Agent, instance: &Instance) -> std::result::Result<(), EngineError> {
    let found = agent.engine.look(&instance.ours()).await?.volumes;
    let (app, release) = (instance.app.clone(), instance.release.clone());
    let of = instance.name.clone();
    let write = agent.store.write(move |db| {
        volumes::leave(db, &of)?;
        found.into_iter().try_for_each(|(name, path)| {
            let (app, release) = (app.clone(), release.clone());
            let volume = Volume {
                name,
                app,
                release,
                path,
                instance: None,
            };
            volumes::insert(db, &volume)
        })
    });
    Ok(write.await?)
}

/// Removes volumes that were kept; one that somebody uses by now is theirs, and only forgotten.
pub async fn remove_volumes(agent: &Agent, kept: Vec<Volume>) -> Result<()> {
    for volume in kept {
        match agent.engine.remove_volume(&volume.name).await {
            Ok(()) => {}
            Err(EngineError::Refused { cause, .. }) => {
                tracing::warn!(app = %volume.app, volume = volume.name, "it is not removed: {cause}");
            }
            // Tried again after the next deployment.
            Err(_) => return Ok(()),
        }
        let delete = move |db: &_| volumes::delete(db, &volume.name);
        agent.store.write(delete).await?;
    }
    Ok(())
}

/// Removes the images of all but the `keep` most recently live releases; releases of the same images,
/// because a commit was deployed again, count as one. What failed in its bake, or never went live, is
/// kept only where good ones leave room. What Docker refuses is retried after the next deployment.
pub async fn old_images(agent: &Agent, app: &AppName, keep: usize) -> Result<()> {
    let name = app.clone();
    let read = agent.store.read(move |db| {
        let mut kept = Vec::new();
        for release in releases::kept(db, &name)? {
            let is_good =
                release.went_live.is_some() && !deployments::was_rolled_back(db, &release.id)?;
            kept.push((!is_good, release));
        }
        kept.sort_by_key(|(is_bad, _)| *is_bad);
        let running = instances::releases_of(db, &name)?;
        Ok((apps::serving(db, &name)?.live, running, kept))
    });
    let (live, running, kept) = read.await?;
    let mut distinct: Vec<Vec<&str>> = Vec::new();
    let (stay, go): (Vec<_>, Vec<_>) = kept.iter().partition(|(_, release)| {
        let services = release.services.iter();
        let images: Vec<_> = services.map(|it| it.image_id.as_str()).collect();
        if !distinct.contains(&images) && distinct.len() < keep.max(1) {
            distinct.push(images.clone());
        }
        distinct.contains(&images) || Some(&release.id) == live.as_ref()
    });
    let used: HashSet<&str> = stay
        .iter()
        .flat_map(|(_, release)| &release.services)
        .map(|service| service.image_id.as_str())
        .collect();
    // The others' turn comes once their last instance has stopped.
    let go = go.iter().filter(|(_, it)| !running.contains(&it.id));
    'releases: for (_, release) in go {
        for service in &release.services {
            if !used.contains(service.image_id.as_str())
                && let Err(error) = agent.engine.remove_image(&service.image_id).await
            {
                tracing::warn!(%app, image = service.image, %error, "failed to remove an old image");
                continue 'releases;
            }
        }
        let id = release.id.clone();
        let kept = (agent.store).read(move |db| volumes::of_release(db, &id));
        remove_volumes(agent, kept.await?).await?;
        let (id, services) = (release.id.clone(), release.services.clone());
        let gone = services.into_iter().map(|service| service.image_id);
        let gone: Vec<_> = gone.filter(|id| !used.contains(id.as_str())).collect();
        agent
            .store
            .write(move |db| {
                gone.iter()
                    .try_for_each(|image| images::delete(db, image))?;
                releases::set_removed(db, &id)
            })
            .await?;
    }
    Ok(())
}
