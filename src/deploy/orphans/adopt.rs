//! Records again what serves and no record names, so that the next deployment drains it and a rollback can
//! go back to it. What serves is what the proxy sends requests to or, where its table is lost too, what
//! Docker was told to keep running.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{Found, OrphanError, find};
use crate::deploy::{Agent, routes};
use crate::engine::inventory::{FoundImage, ImageTag};
use crate::ids::{AppName, ReleaseId};
use crate::principal::Requester;
use crate::proxy::table::Table;
use crate::store::apps;
use crate::store::instances::{self, Instance};
use crate::store::releases::{self, Release};
use crate::store::volumes::{self, Volume};
use crate::store::{StoreError, actions, deployments};

mod candidate;
mod release;

use candidate::{Candidate, candidate};

/// What was recorded again, and what was not.
#[derive(Debug, Default)]
pub struct Outcome {
    pub adopted: Vec<Adopted>,
    pub left: Vec<Left>,
}

#[derive(Debug)]
pub struct Adopted {
    pub app: AppName,
    pub release: ReleaseId,
    pub image: String,
    pub containers: Vec<String>,
}

/// Something that was not recorded again.
#[derive(Debug)]
pub struct Left {
    pub app: Option<AppName>,
    pub name: String,
    pub reason: String,
}

/// Adopts what serves of every app of deploy.toml, or of `only`. Runs to its end even if nobody waits
/// for it any more.
pub async fn adopt(
    agent: &Arc<Agent>,
    only: Option<AppName>,
    by: Requester,
) -> Result<Outcome, OrphanError> {
    let agent = agent.clone();
    let done = tokio::spawn(async move {
        let _turn = agent.changing.lock().await;
        let found = find(&agent).await?;
        let mut outcome = Outcome::default();
        for name in apps_of(&found, &agent.unrecorded.apps(), only.as_ref()) {
            match app(&agent, &name, &found, &by).await? {
                Ok(adopted) => {
                    let release = &adopted.release;
                    tracing::info!(app = %name, %release, %by, "adopted what serves");
                    outcome.adopted.push(adopted);
                }
                Err(reason) => outcome.left.push(Left {
                    app: Some(name.clone()),
                    name: name.to_string(),
                    reason,
                }),
            }
        }
        volumes_of_kept(&agent, &found).await?;
        outcome.left.extend(left(&found, &outcome, only.as_ref()));
        if !outcome.adopted.is_empty() {
            follow(&agent, &outcome).await;
        }
        Ok(outcome)
    });
    done.await.map_err(|_| StoreError::Stopped)?
}

/// The apps that have containers without a record, or a route that the database does not know.
fn apps_of(found: &Found, unrecorded: &[String], only: Option<&AppName>) -> Vec<AppName> {
    let routed = unrecorded.iter().filter_map(|app| app.parse().ok());
    let containers = found.orphans.containers.iter();
    let containers = containers.filter_map(|it| it.app.clone());
    let mut apps: Vec<AppName> = routed.chain(containers).chain(only.cloned()).collect();
    apps.sort();
    apps.dedup();
    apps.retain(|app| only.is_none_or(|only| only == app));
    apps
}

/// Adopts one app. The inner error is the reason why there is nothing to adopt.
async fn app(
    agent: &Agent,
    name: &AppName,
    found: &Found,
    by: &Requester,
) -> Result<Result<Adopted, String>, OrphanError> {
    let Some(app) = agent.app(name) else {
        let why = "it is not in deploy.toml: add it and run `cutover reload` first";
        return Ok(Err(why.to_owned()));
    };
    let candidate = match candidate(agent, name, found).await? {
        Ok(candidate) => candidate,
        Err(why) => return Ok(Err(why)),
    };
    let id = candidate.release.clone();
    let read = agent.store.read(move |db| {
        let recorded = instances::all(db)?;
        let recorded: Vec<_> = recorded.into_iter().filter_map(|it| it.endpoint).collect();
        let all = instances::all(db)?.into_iter();
        let known = all.filter(|it| it.release == id).count();
        Ok((releases::get(db, &id)?, known, recorded))
    });
    let (known, instances, mut recorded) = read.await?;
    if candidate.containers.is_empty() && instances == 0 {
        let id = &candidate.release;
        return Ok(Err(format!(
            "no container of the release `{id}`, which serves, was found"
        )));
    }
    let release = match known {
        Some(release) => release,
        None => match release::of(agent, &app, &candidate, &found.images).await {
            Ok(release) => release,
            Err(why) => return Ok(Err(why)),
        },
    };
    let mut instances = Vec::new();
    for (container, details) in &candidate.containers {
        let instance = release::instance(agent, &release, container, details, &recorded).await?;
        recorded.extend(instance.endpoint);
        instances.push(instance);
    }
    record(agent, release, candidate, instances, &found.table, by).await
}

/// Everything about one app in one transaction, unless it was deployed meanwhile.
async fn record(
    agent: &Agent,
    release: Release,
    candidate: Candidate,
    instances: Vec<Instance>,
    table: &Table,
    by: &Requester,
) -> Result<Result<Adopted, String>, OrphanError> {
    let (by, generation) = (by.clone(), table.generation);
    let write = agent.store.write(move |db| {
        let app = &release.app;
        if apps::serving(db, app)? != candidate.serving {
            return Ok(Err("it was deployed meanwhile".to_owned()));
        }
        let containers: Vec<_> = instances.iter().map(|it| it.name.clone()).collect();
        let detail = json!({ "release": release.id, "containers": containers });
        actions::insert(db, actions::Kind::Adopt, Some(app), &detail, &by)?;
        match releases::get(db, &release.id)? {
            Some(_) => releases::set_kept(db, &release.id)?,
            None => {
                deployments::insert_adopted(db, &release, &by)?;
                releases::insert(db, &release)?;
                let live_since = release.went_live.unwrap_or(release.created_at);
                releases::set_went_live(db, &release.id)?;
                releases::set_live_since(db, &release.id, live_since)?;
            }
        }
        instances::keep(db, &release.id)?;
        for instance in &instances {
            instances::delete(db, &instance.name)?;
            instances::insert(db, instance)?;
        }
        for (container, _) in &candidate.containers {
            for (name, path) in &container.volumes {
                let volume = Volume {
                    name: name.clone(),
                    app: app.clone(),
                    release: release.id.clone(),
                    path: path.clone(),
                    instance: Some(container.name.clone()),
                };
                volumes::insert(db, &volume)?;
            }
        }
        // Above every table that the proxy has had.
        apps::next_generation(db, generation)?;
        apps::set_live(db, app, &release.id)?;
        Ok(Ok(Adopted {
            app: app.clone(),
            image: release
                .main()
                .map(|it| it.image.clone())
                .unwrap_or_default(),
            release: release.id.clone(),
            containers,
        }))
    });
    Ok(write.await?)
}

/// Volumes that containers of kept releases have left.
async fn volumes_of_kept(agent: &Agent, found: &Found) -> Result<(), OrphanError> {
    let left = found.orphans.volumes.clone();
    let write = agent.store.write(move |db| {
        for volume in left {
            let (Some(app), Some(id)) = (volume.app, volume.release) else {
                continue;
            };
            let kept = releases::get(db, &id)?.filter(|it| it.removed_at.is_none());
            let known = volumes::of_release(db, &id)?;
            if kept.is_none() || known.iter().any(|it| it.name == volume.name) {
                continue;
            }
            let volume = Volume {
                name: volume.name,
                app,
                release: id,
                path: volume.path.unwrap_or_default(),
                instance: None,
            };
            volumes::insert(db, &volume)?;
        }
        Ok(())
    });
    Ok(write.await?)
}

/// The proxy goes by the record from now on, and Docker keeps what was adopted running.
async fn follow(agent: &Agent, outcome: &Outcome) {
    for pause in [100, 1000, 0] {
        let Err(error) = routes::publish(agent).await else {
            break;
        };
        tracing::error!(%error, "failed to publish the routes of what was adopted");
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    let adopted = outcome.adopted.iter().map(|it| it.release.clone());
    for release in adopted {
        let read = agent
            .store
            .read(move |db| instances::of_release(db, &release));
        for instance in read.await.unwrap_or_default() {
            if let Err(error) = agent.engine.keep_running(&instance.ours(), true).await {
                tracing::warn!(container = instance.name, %error, "it will not survive a reboot");
            }
        }
    }
    agent.tend.switched.notify_one();
    agent.hub.changed();
}

/// The containers and images that were not adopted, each with the reason.
fn left(found: &Found, outcome: &Outcome, only: Option<&AppName>) -> Vec<Left> {
    let is_wanted = |app: &Option<AppName>| only.is_none_or(|only| app.as_ref() == Some(only));
    let adopted = |name: &str| {
        let mut all = outcome.adopted.iter().flat_map(|it| &it.containers);
        all.any(|it| it == name)
    };
    let containers = found.orphans.containers.iter();
    let containers = containers.filter(|it| is_wanted(&it.app) && !adopted(&it.name));
    let containers = containers.map(|it| Left {
        app: it.app.clone(),
        name: it.name.clone(),
        reason: "it is not what serves".to_owned(),
    });
    let images = found.orphans.images.iter();
    let in_use = |it: &FoundImage| {
        let mut all = found.orphans.containers.iter();
        all.any(|container| container.image_id == it.id && adopted(&container.name))
    };
    let images = images.filter(|it| is_wanted(&it.app) && !in_use(it));
    let images = images.map(|it| {
        let commit = it.names.iter().find_map(|name| match &name.tag {
            ImageTag::Commit(commit) => Some(commit.clone()),
            ImageTag::Deployment(_) => None,
        });
        let app = it.app.as_ref().map(AppName::as_str).unwrap_or_default();
        let reason = "whether it ever served is not known".to_owned();
        let again = commit.map(|it| format!("; `cutover deploy {app} --ref {it}` builds it again"));
        Left {
            app: it.app.clone(),
            name: it
                .names
                .first()
                .map_or_else(|| it.id.clone(), |name| name.full.clone()),
            reason: reason + &again.unwrap_or_default(),
        }
    });
    containers.chain(images).collect()
}
