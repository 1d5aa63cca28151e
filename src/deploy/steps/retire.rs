//! Stop what is no longer live, and remove the images that are not kept.

use std::collections::HashSet;

use crate::deploy::checkpoint::Checkpoint;
use crate::deploy::line::{Done, Line};
use crate::deploy::{Agent, Result};
use crate::engine::EngineError;
use crate::ids::AppName;
use crate::state::Step;
use crate::store::deployments::Goal;
use crate::store::instances::{self, Instance};
use crate::store::releases::{self, Release};
use crate::store::volumes::{self, Volume};
use crate::store::{apps, deployments, images};

pub async fn retire(line: &Line<'_>) -> Result<()> {
    line.begin(Step::Retire, |_| Ok(())).await?;
    // A waiting rollback needs the old release warm; it will do the retiring itself.
    let app = line.app.name.clone();
    let next = line
        .agent
        .store
        .read(move |db| deployments::next_waiting(db, &app))
        .await?;
    let detail = match next.map(|next| next.goal) {
        Some(Goal::Release(_)) => "left to the waiting rollback".to_owned(),
        _ => {
            let stopped = line
                .insist("retire the old version", || {
                    old_instances(line.agent, &line.app.name)
                })
                .await;
            old_images(line.agent, &line.app.name, line.app.deploy.keep_releases).await?;
            match stopped {
                1 => "1 old instance stopped".to_owned(),
                stopped => format!("{stopped} old instances stopped"),
            }
        }
    };
    Checkpoint::Effected(Step::Retire).reach();
    line.log.line(&format!("[retire] {detail}"));
    line.note(Step::Retire, Done::new((), detail));
    Ok(())
}

/// Stops and removes every instance of the app that does not belong to its live release; returns
/// how many.
pub async fn old_instances(
    agent: &Agent,
    app: &AppName,
) -> std::result::Result<usize, EngineError> {
    // Nothing of the old release is being brought back from here on.
    drop(agent.tend.repairs.write().await);
    let name = app.clone();
    let old: Vec<(Instance, Option<Release>)> = agent
        .store
        .read(move |db| {
            let live = apps::serving(db, &name)?.live;
            let all = instances::of_app(db, &name)?.into_iter();
            all.filter(|instance| Some(&instance.release) != live.as_ref())
                .map(|instance| {
                    let release = releases::get(db, &instance.release)?;
                    Ok((instance, release))
                })
                .collect()
        })
        .await?;
    let count = old.len();
    let each = old.into_iter().map(|(instance, release)| async move {
        let grace = release
            .as_ref()
            .and_then(|release| release.service(&instance.service))
            .map(|service| service.settings.stop_grace)
            .unwrap_or_default();
        agent.engine.keep_running(&instance.ours(), false).await?;
        agent.engine.stop(&instance.ours(), grace).await?;
        keep_volumes(agent, &instance).await?;
        agent
            .engine
            .remove_without_volumes(&instance.ours())
            .await?;
        let name = instance.name;
        let deleted = agent.store.write(move |db| instances::delete(db, &name));
        Ok::<_, EngineError>(deleted.await?)
    });
    futures_util::future::try_join_all(each).await?;
    Ok(count)
}

/// Writes down the anonymous volumes of an instance that is about to be removed: what the app has stored
/// there stays for as long as its release is kept.
async fn keep_volumes(agent: &Agent, instance: &Instance) -> std::result::Result<(), EngineError> {
    let found = agent.engine.look(&instance.ours()).await?.volumes;
    if found.is_empty() {
        return Ok(());
    }
    let (app, release) = (instance.app.clone(), instance.release.clone());
    let write = agent.store.write(move |db| {
        found.into_iter().try_for_each(|(name, path)| {
            let (app, release) = (app.clone(), release.clone());
            let volume = Volume {
                name,
                app,
                release,
                path,
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

/// Removes the images of all but the `keep` most recently live releases. An image of the live release,
/// or of a kept one, stays. What Docker refuses is retried after the next deployment.
pub async fn old_images(agent: &Agent, app: &AppName, keep: usize) -> Result<()> {
    let name = app.clone();
    let (live, kept) = agent
        .store
        .read(move |db| Ok((apps::serving(db, &name)?.live, releases::kept(db, &name)?)))
        .await?;
    let (stay, go): (Vec<_>, Vec<_>) = kept
        .into_iter()
        .enumerate()
        .partition(|(index, release)| *index < keep.max(1) || Some(&release.id) == live.as_ref());
    let used: HashSet<&str> = stay
        .iter()
        .flat_map(|(_, release)| &release.services)
        .map(|service| service.image_id.as_str())
        .collect();
    'releases: for (_, release) in &go {
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
