//! Removes an app: its containers, its images and its route. Only what our own record names is
//! removed. The intent is stored first; what one agent leaves undone, the next one completes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::checkpoint::Checkpoint;
use super::steps::retire;
use super::{Agent, Result, networks, output, routes, secret_files, undo};
use crate::engine::EngineError;
use crate::ids::AppName;
use crate::principal::Requester;
use crate::source;
use crate::state::{Event, State, Step};
use crate::store::deployments::{self, Deployment, Failure};
use crate::store::instances::{self, Instance};
use crate::store::releases::{self, Release};
use crate::store::{
    StoreError, actions, app_names, apps, images, jobs, named_volumes, secrets, variables, volumes,
};
use serde::Serialize;

/// The drain deadline for an app that is no longer in deploy.toml.
const DRAIN: Duration = Duration::from_secs(30);

/// What is removed with an app, or would be.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Removal {
    #[schema(example = "hello")]
    pub app: String,
    /// Whether the app is in deploy.toml, so that the next push or deployment brings it back.
    pub configured: bool,
    /// Whether the removal is in progress; false once everything is gone.
    pub removing: bool,
    /// The release that serves.
    #[schema(required)]
    pub live: Option<String>,
    pub containers: Vec<String>,
    /// By their names; those of failed deployments by their ids.
    pub images: Vec<String>,
    /// Whether the app's volumes, those of deploy.toml and the anonymous ones, and its secrets are
    /// removed too.
    pub volumes: bool,
    /// The volumes that deploy.toml names or named.
    pub named_volumes: Vec<String>,
    /// The ids of the deployments that are cancelled.
    pub deployments: Vec<String>,
}

/// What would be removed with the app.
pub async fn of(agent: &Agent, app: &AppName, volumes: bool) -> Result<Removal> {
    let configured = agent.app(app).is_some();
    // Of an app that the database does not know, only the route can be removed.
    let routed = routes::routed(agent).await.routes.into_iter();
    let routed = routed.filter(|route| route.app == app.as_str());
    let mut routed = routed.flat_map(|route| route.shares);
    let serves = routed.find(|share| !share.targets.is_empty());
    let name = app.clone();
    let read = agent.store.read(move |db| {
        let images = shown_images(db, &name)?;
        let instances = instances::of_app(db, &name)?;
        let open = open(db, &name)?;
        Ok(Removal {
            configured,
            removing: app_names::is_being_removed(db, &name)?,
            live: match apps::serving(db, &name)?.live {
                Some(live) => Some(live.into()),
                None => serves.map(|share| share.release),
            },
            containers: instances.into_iter().map(|it| it.name).collect(),
            images,
            volumes,
            named_volumes: named_volumes::of_app(db, &name)?,
            deployments: open.into_iter().map(|it| it.id.into()).collect(),
            app: name.into(),
        })
    });
    read.await
}

/// Begins to remove an app. Once the intent is stored, the removal is completed, if need be after a
/// restart of the agent.
pub async fn remove(
    agent: &Arc<Agent>,
    app: &AppName,
    volumes: bool,
    by: Requester,
) -> Result<Removal> {
    let mut removal = of(agent, app, volumes).await?;
    let name = app.clone();
    tracing::info!(%app, volumes, %by, "removing an app");
    let begin = agent.store.write(move |db| {
        let detail = serde_json::json!({ "volumes": volumes });
        actions::insert(db, actions::Kind::Remove, Some(&name), &detail, &by)?;
        app_names::begin_removal(db, &name, volumes)
    });
    begin.await?;
    Checkpoint::Removing.reach();
    let (agent, app) = (agent.clone(), app.clone());
    tokio::spawn(async move { complete(&agent, &app, volumes).await });
    removal.removing = true;
    Ok(removal)
}

/// Completes a removal, retrying for as long as it takes.
pub async fn complete(agent: &Arc<Agent>, app: &AppName, volumes: bool) {
    agent.workers.hold(app).await;
    let mut pause = Duration::from_millis(200);
    while let Err(error) = attempt(agent, app, volumes).await {
        tracing::warn!(%app, %error, "failed to remove the app; retrying");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
    tracing::info!(%app, "removed the app");
    agent.workers.release(app);
    if agent.app(app).is_some() {
        agent.workers.start(agent, app);
    }
}

#[derive(Debug, thiserror::Error)]
enum RemovalError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Routes(#[from] routes::PublishError),
    #[error(transparent)]
    Drain(#[from] crate::proxy::control::Error),
}

/// Attempts the whole removal; each part of it can be repeated.
async fn attempt(
    agent: &Arc<Agent>,
    app: &AppName,
    with_volumes: bool,
) -> std::result::Result<(), RemovalError> {
    let name = app.clone();
    let (open, instances, kept) = agent
        .store
        .read(move |db| {
            let instances = with_releases(db, instances::of_app(db, &name)?)?;
            let mut open = open(db, &name)?;
            // What was queued since then waits for the end of the removal.
            if let Some(since) = app_names::removing_since(db, &name)? {
                open.retain(|it| it.created_at <= since || it.state != State::Queued);
            }
            Ok((open, instances, releases::kept(db, &name)?))
        })
        .await?;
    for deployment in open.iter().filter(|it| !it.state.is_switched()) {
        undo::take_back(agent, &deployment.id).await?;
    }
    // After this write no queued deployment starts; once the routes are published, no request is routed
    // to the app.
    let name = app.clone();
    let generation = agent
        .store
        .write(move |db| {
            open.iter().try_for_each(|deployment| end(db, deployment))?;
            app_names::take_off(db, &name)
        })
        .await?;
    drop(agent.tend.repairs.write().await);
    agent.hub.changed();
    Checkpoint::TakenOff.reach();
    routes::publish(agent).await?;
    let drain = agent.app(app).map_or(DRAIN, |app| app.deploy.drain);
    let proxy = &agent.proxy;
    proxy.drain(app.as_str(), generation, drain, drain).await?;
    let name = app.clone();
    let jobs = agent.store.read(move |db| jobs::open_of_app(db, &name));
    for job in jobs.await? {
        agent.engine.remove(&job.ours()).await?;
        let ended = move |db: &_| jobs::ended(db, &job.name, None);
        agent.store.write(ended).await?;
    }
    for (instance, release) in instances {
        stop(agent, &instance, release, with_volumes).await?;
        Checkpoint::Removed.reach();
    }
    remove_images(agent, app, kept).await?;
    if with_volumes {
        let name = app.clone();
        let kept = agent.store.read(move |db| volumes::of_app(db, &name));
        retire::remove_volumes(agent, kept.await?).await?;
        remove_named_volumes(agent, app).await?;
        let name = app.clone();
        let forget = move |db: &_| {
            secrets::unset_all(db, &name)?;
            variables::unset_all(db, &name)
        };
        agent.store.write(forget).await?;
    }
    output::forget(agent, app).await;
    secret_files::sweep(agent).await?;
    let mirrors = agent.in_force().config.agent.data_dir.join("repos");
    let mirror = mirrors.join(format!("{app}.git"));
    let removed = tokio::task::spawn_blocking(move || source::remove_mirror(&mirror));
    if let Ok(Err(error)) = removed.await {
        tracing::warn!(%app, %error, "the copy of its repository is not removed");
    }
    let name = app.clone();
    agent
        .store
        .write(move |db| app_names::end_removal(db, &name))
        .await?;
    if let Err(error) = networks::sweep(agent, Some(app)).await {
        tracing::warn!(%app, %error, "its network is not removed yet, will retry");
    }
    Ok(())
}

/// Removes the volumes that deploy.toml named. One that somebody else's container uses stays, and stays
/// known.
async fn remove_named_volumes(
    agent: &Agent,
    app: &AppName,
) -> std::result::Result<(), RemovalError> {
    let name = app.clone();
    let all = (agent.store).read(move |db| named_volumes::of_app(db, &name));
    for volume in all.await? {
        let removed = agent.engine.remove_volume(&volume).await;
        if is_removed(app, &volume, removed)? {
            let delete = move |db: &_| named_volumes::delete(db, &volume);
            agent.store.write(delete).await?;
        }
    }
    Ok(())
}

/// False if the engine refuses, as it does while somebody else's container uses it. The removal does not wait
/// for that: an image goes when the app is tidied next, or with `gc` once deploy.toml no longer has the app; a
/// volume with the next removal.
fn is_removed(
    app: &AppName,
    what: &str,
    removed: crate::engine::Result<()>,
) -> crate::engine::Result<bool> {
    match removed {
        Ok(()) => Ok(true),
        Err(EngineError::Refused { cause, .. }) => {
            tracing::warn!(%app, "`{what}` was not removed with the app: {cause}");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn open(db: &rusqlite::Connection, app: &AppName) -> Result<Vec<Deployment>> {
    let all = deployments::open(db)?.into_iter();
    Ok(all.filter(|deployment| deployment.app == *app).collect())
}

fn with_releases(
    db: &rusqlite::Connection,
    instances: Vec<Instance>,
) -> Result<Vec<(Instance, Option<Release>)>> {
    let each = instances.into_iter().map(|instance| {
        let release = releases::get(db, &instance.release)?;
        Ok((instance, release))
    });
    each.collect()
}

/// A deployment that has switched counts as live; any other is cancelled.
fn end(db: &rusqlite::Connection, deployment: &Deployment) -> Result<()> {
    let id = &deployment.id;
    if deployment.state == State::Switching {
        deployments::apply(db, id, Event::Begin(Step::Drain))?;
    }
    if deployment.state.is_switched() {
        return deployments::end(db, id, Event::Finish, None).map(drop);
    }
    let why = Failure {
        code: "app_removed".into(),
        message: "the app was removed".into(),
        step: None,
        log_tail: vec![],
    };
    deployments::end(db, id, Event::Cancel, Some(&why)).map(drop)
}

async fn stop(
    agent: &Agent,
    instance: &Instance,
    release: Option<Release>,
    volumes: bool,
) -> std::result::Result<(), RemovalError> {
    let grace = release
        .as_ref()
        .and_then(|release| release.service(&instance.service))
        .map(|service| service.settings.stop_grace)
        .unwrap_or_default();
    let (engine, ours, name) = (&agent.engine, instance.ours(), instance.name.clone());
    engine.keep_running(&ours, false).await?;
    engine.stop(&ours, grace).await?;
    match volumes {
        true => engine.remove(&ours).await?,
        false => engine.remove_without_volumes(&ours).await?,
    }
    agent
        .store
        .write(move |db| {
            volumes::leave(db, &name)?;
            instances::delete(db, &name)
        })
        .await?;
    Ok(())
}

/// The images by their names; those of failed deployments, which may have lost theirs, by their ids.
fn shown_images(db: &rusqlite::Connection, app: &AppName) -> Result<Vec<String>> {
    let kept = releases::kept(db, app)?.into_iter();
    let services: Vec<_> = kept.flat_map(|release| release.services).collect();
    let mut shown: BTreeSet<_> = services.iter().map(|it| it.image.clone()).collect();
    for built in images::of_app(db, app)?.into_values() {
        if !services.iter().any(|it| it.image_id == built.id)
            && !releases::is_shared(db, &built.id, app)?
        {
            shown.insert(built.id);
        }
    }
    Ok(shown.into_iter().collect())
}

/// Removes the images of the app's releases and of its failed deployments, except those that another app's
/// release uses.
async fn remove_images(
    agent: &Agent,
    app: &AppName,
    kept: Vec<Release>,
) -> std::result::Result<(), RemovalError> {
    let services = kept.iter().flat_map(|release| &release.services);
    let mut all: BTreeSet<_> = services.map(|service| service.image_id.clone()).collect();
    let name = app.clone();
    let read = agent.store.read(move |db| {
        all.extend(images::of_app(db, &name)?.into_values().map(|it| it.id));
        let mut own = Vec::new();
        for id in all {
            if !releases::is_shared(db, &id, &name)? {
                own.push(id);
            }
        }
        Ok(own)
    });
    let own = read.await?;
    for id in &own {
        is_removed(app, id, agent.engine.remove_image(id).await)?;
    }
    let forget = move |db: &_| {
        own.iter().try_for_each(|id| images::delete(db, id))?;
        kept.iter()
            .try_for_each(|release| releases::set_removed(db, &release.id))
    };
    Ok(agent.store.write(forget).await?)
}
