//! Removes images that no release goes back to, and names that an image no longer needs: those of
//! deployments that failed, were interrupted, or built nothing new.

use std::collections::HashSet;

use rusqlite::Connection;

use super::steps::retire;
use super::{Agent, Result};
use crate::config::App;
use crate::engine::inventory::{FoundImage, ImageName, ImageTag};
use crate::engine::{Engine, EngineError};
use crate::store::releases::{self, Release};
use crate::store::{StoreError, deployments};

#[derive(Debug, thiserror::Error)]
pub enum TidyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Tidies up after an app's deployments, none of which may be running. Only what the database knows is
/// removed; the rest is left to `gc`.
pub async fn tidy(agent: &Agent, app: &App) -> std::result::Result<(), TidyError> {
    retire::old_images(agent, &app.name, app.deploy.keep_releases).await?;
    let found = agent.engine.images().await?;
    let (name, was) = (app.name.clone(), app.was.clone());
    let surplus = agent.store.read(move |db| {
        let kept = releases::kept(db, &name)?;
        let mut surplus = Vec::new();
        for image in found {
            if image.app.is_some() && (image.app.as_ref() == Some(&name) || image.app == was) {
                surplus.extend(names_to_remove(db, &image, &kept)?);
            }
        }
        Ok(surplus)
    });
    remove(&agent.engine, surplus.await?).await;
    Ok(())
}

/// The image's names that a deployment in the database gave it and that no kept release needs. The
/// deployments' own names come last: the image goes with its last name.
fn names_to_remove(
    db: &Connection,
    image: &FoundImage,
    kept: &[Release],
) -> Result<Vec<(String, String)>> {
    let needed = needed(&image.id, kept);
    let mut names = Vec::new();
    for name in image.names.iter().filter(|it| !needed.contains(&it.full)) {
        if is_recorded(db, name)? {
            names.push(name);
        }
    }
    names.sort_by_key(|name| matches!(name.tag, ImageTag::Deployment(_)));
    let names = names.into_iter();
    Ok(names
        .map(|name| (image.id.clone(), name.full.clone()))
        .collect())
}

/// The names that an image needs: those of the commits of its kept releases, which people see, and one
/// that nobody else moves to another image.
fn needed(image: &str, kept: &[Release]) -> HashSet<String> {
    let services = kept.iter().flat_map(|release| {
        let services = release.services.iter();
        services.map(move |service| (release, service))
    });
    let of_image: Vec<_> = services.filter(|(_, it)| it.image_id == image).collect();
    let newest = of_image.iter().max_by_key(|(release, _)| &release.id);
    let own = newest.map(|(release, service)| {
        let repository = service.image.rsplit_once(':').map_or("", |(name, _)| name);
        format!("{repository}:{}", release.deployment)
    });
    let commits = of_image.iter().map(|(_, service)| service.image.clone());
    commits.chain(own).collect()
}

/// Whether a deployment that has ended gave this name.
fn is_recorded(db: &Connection, name: &ImageName) -> Result<bool> {
    match &name.tag {
        ImageTag::Deployment(id) => {
            let found = deployments::get(db, id)?;
            Ok(found.is_some_and(|it| it.ended_at.is_some()))
        }
        ImageTag::Commit(short) => deployments::has_ended_with(db, short),
    }
}

async fn remove(engine: &Engine, names: Vec<(String, String)>) {
    for (id, name) in names {
        match engine.untag_image(&id, &name).await {
            Ok(()) => tracing::debug!(name, "removed a name of an image"),
            // Somebody's container uses the image; tried again later.
            Err(error) => tracing::debug!(name, %error, "failed to remove a name of an image"),
        }
    }
}
