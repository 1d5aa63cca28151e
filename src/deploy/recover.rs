//! The one place that cleans up after a crash. It runs at start, before an app's worker, and again
//! when a deployment could not be written down.
//!
//! - Before the switch: what its steps did is taken back, and the deployment runs again from the
//!   start; its image is found in the cache, so that this costs little and the push is not lost.
//!   After three attempts it fails.
//! - From the switch on: forward to the end.
//! - Containers that our record names and nothing needs are removed, and those of the live release
//!   that do not run are started.

use std::collections::HashSet;

use rusqlite::Connection;

use super::line::{Line, Stop};
use super::steps::retire;
use super::{Agent, Result, routes, run, undo};
use crate::config::App;
use crate::engine::{EngineError, Found, InstanceSpec, Status};
use crate::ids::AppName;
use crate::store::deployments::{self, Deployment};
use crate::store::{StoreError, apps, instances, jobs, releases};

/// Brings every open deployment of the app to where it can go on, or to its end.
pub async fn app(agent: &Agent, app: &App) -> Result<()> {
    let name = app.name.clone();
    let open = agent
        .store
        .read(move |db| Ok(of_app(deployments::open(db)?, &name)))
        .await?;
    for deployment in open {
        if deployment.state.is_switched() {
            forward(agent, app, &deployment).await?;
        } else if deployment.attempts > 0 {
            back(agent, &deployment).await?;
        }
    }
    agent.wait_for_engine().await;
    if let Err(error) = revive(agent, &app.name).await {
        tracing::warn!(app = %app.name, %error, "cannot bring the live release back yet");
    }
    match retire::old_instances(agent, &app.name).await {
        Ok(0) => {}
        Ok(count) => {
            tracing::info!(app = %app.name, count, "stopped instances that were left over")
        }
        Err(error) => tracing::warn!(app = %app.name, %error, "cannot stop what was left over yet"),
    }
    Ok(())
}

fn of_app(open: Vec<Deployment>, app: &AppName) -> Vec<Deployment> {
    open.into_iter()
        .filter(|deployment| deployment.app == *app)
        .collect()
}

async fn forward(agent: &Agent, app: &App, deployment: &Deployment) -> Result<()> {
    let id = deployment.release.clone();
    let release = agent.store.read(move |db| match id {
        Some(id) => releases::get(db, &id),
        None => Ok(None),
    });
    let Some(release) = release.await? else {
        return Err(StoreError::Refused(format!(
            "`{}` is switched to no release",
            deployment.id
        )));
    };
    tracing::info!(app = %app.name, deployment = %deployment.id, state = %deployment.state,
        "taking up a deployment after the switch");
    let line = Line::enter(agent, app, deployment.id.clone())?;
    line.log.line("the agent came back; going on");
    run::after_switch(&line, &release, deployment.state).await
}

async fn back(agent: &Agent, deployment: &Deployment) -> Result<()> {
    tracing::info!(app = %deployment.app, deployment = %deployment.id, state = %deployment.state,
        "undoing a deployment that was interrupted before the switch");
    if let Err(error) = undo::take_back(agent, &deployment.id).await {
        let (id, error) = (deployment.id.clone(), undo::stuck(&error));
        let stick = crate::state::Event::Stick;
        return agent
            .store
            .write(move |db| deployments::end(db, &id, stick, Some(&error)).map(drop))
            .await;
    }
    let why = "the agent was interrupted".to_owned();
    undo::end(agent, &deployment.id, Stop::Interrupted(why)).await
}

/// Starts the live release's containers where they do not run: somebody stopped or removed them
/// while the agent was away.
async fn revive(agent: &Agent, app: &AppName) -> std::result::Result<(), EngineError> {
    let name = app.clone();
    let found = agent.store.read(move |db| {
        let live = apps::serving(db, &name)?.live;
        let release = live.map(|live| releases::get(db, &live)).transpose()?;
        Ok((release.flatten(), instances::all(db)?))
    });
    let (Some(release), all) = found.await? else {
        return Ok(());
    };
    let recorded: Vec<_> = all.iter().filter_map(|it| it.endpoint).collect();
    let mut moved = false;
    for instance in all.iter().filter(|it| it.release == release.id) {
        if agent.engine.status(&instance.name).await? == Status::Running {
            continue;
        }
        tracing::warn!(%app, container = instance.name, "the live release did not run; starting it");
        let Some(service) = release.service(&instance.service) else {
            let (id, name) = (&release.id, &instance.service);
            let what = format!("the release `{id}` has no service `{name}`");
            return Err(EngineError::Stopped(what));
        };
        let spec = InstanceSpec {
            instance,
            service,
            recorded: &recorded,
        };
        let endpoint = agent.engine.start(&spec).await?;
        agent.engine.keep_running(&instance.name, true).await?;
        if endpoint != instance.endpoint {
            let name = instance.name.clone();
            let set = move |db: &_| instances::set_endpoint(db, &name, endpoint);
            agent.store.write(set).await?;
            moved = true;
        }
    }
    if moved && let Err(error) = routes::publish_anew(agent).await {
        return Err(EngineError::Stopped(error.to_string()));
    }
    Ok(())
}

/// Removes containers that our record names and that nothing needs any more; says how many. The
/// label alone makes no container ours: one that somebody runs from an image of ours inherits it.
pub async fn orphans(agent: &Agent) -> std::result::Result<usize, EngineError> {
    let found = agent.engine.list().await?;
    let read = agent.store.read(move |db| {
        let instances = instances::all(db)?.into_iter();
        let instances: HashSet<_> = instances.map(|instance| instance.name).collect();
        let mut orphans = Vec::new();
        for container in found {
            if !instances.contains(&container.name) && is_orphan(db, &container)? {
                orphans.push(container.name);
            }
        }
        Ok(orphans)
    });
    let orphans = read.await?;
    for name in &orphans {
        agent.engine.remove(name).await?;
    }
    Ok(orphans.len())
}

/// Whether a container that is no instance is what a job or a deployment that ended has left.
fn is_orphan(db: &Connection, container: &Found) -> Result<bool> {
    if let Some(job) = jobs::get(db, &container.name)? {
        return Ok(job.ended_at.is_some());
    }
    let Some(id) = &container.deployment else {
        return Ok(false);
    };
    let Some(deployment) = deployments::get(db, id)? else {
        return Ok(false);
    };
    let prefix = format!("cutover-{}-{id}-", deployment.app);
    Ok(deployment.state.is_rest() && container.name.starts_with(&prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeploymentId, ReleaseId};
    use crate::state::Event;
    use crate::store::Store;
    use crate::store::fixture::release;
    use crate::store::jobs::{Job, JobKind};

    #[tokio::test]
    async fn only_what_our_record_names_is_an_orphan_and_no_job_that_runs() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let id = release(db, 1)?.deployment;
            let found = |name: &str, deployment: Option<&DeploymentId>| Found {
                name: name.into(),
                deployment: deployment.cloned(),
            };
            let left = format!("cutover-hello-{id}-0");
            let orphan = |name: &str, of: Option<&DeploymentId>| is_orphan(db, &found(name, of));

            assert!(!orphan(&left, Some(&id))?, "its deployment is under way");
            deployments::end(db, &id, Event::Fail, None)?;
            assert!(orphan(&left, Some(&id))?);

            // Run by hand from an image of ours, or from one that was committed from a container.
            assert!(!orphan("eager_lovelace", None)?);
            assert!(!orphan("eager_lovelace", Some(&id))?);
            // Of a record that a backup does not hold.
            assert!(!orphan(&left, Some(&DeploymentId::new()))?);

            // A job that outlives its deployment, or has none.
            for of in [Some(id.clone()), None] {
                let name = format!("cutover-hello-{id}-job");
                let app = "hello".parse().unwrap();
                let job = Job::new(
                    name.clone(),
                    app,
                    ReleaseId::new(),
                    JobKind::Release,
                    of.clone(),
                );
                jobs::insert(db, &job)?;
                assert!(!orphan(&name, of.as_ref())?, "{of:?}");
                jobs::ended(db, &name, Some(0))?;
                assert!(orphan(&name, of.as_ref())?, "{of:?}");
            }
            Ok(())
        });
        write.await.unwrap();
    }
}
