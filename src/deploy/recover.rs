//! The one place that cleans up after a crash. It runs at start, before an app's worker, and again
//! when a deployment could not be recorded.
//!
//! - Before the switch: the deployment's steps are undone and it runs again from the start; its image
//!   is found in the cache, so that this costs little and the push is not lost. After three attempts
//!   it fails.
//! - From the switch on: forward to the end. So too where the database is an old copy that does not know
//!   of the switch, but the proxy does.
//! - Containers that our record names and nothing needs are removed. What is live is kept running by
//!   `jobs/reconcile`.

use rusqlite::Connection;

use super::line::{Line, Stop};
use super::steps::{fetch, retire};
use super::{Agent, Result, masks, run, undo};
use crate::build;
use crate::config::App;
use crate::engine::{EngineError, Found};
use crate::ids::AppName;
use crate::store::deployments::{self, Deployment};
use crate::store::ours::Ours;
use crate::store::{StoreError, given_up, jobs, releases};

mod went_live;

/// Brings every open deployment of the app to a state from which it can continue, or to its end.
pub async fn app(agent: &Agent, app: &App) -> Result<()> {
    let name = app.name.clone();
    let open = agent
        .store
        .read(move |db| Ok(of_app(deployments::open(db)?, &name)))
        .await?;
    let (waiting, begun): (Vec<_>, Vec<_>) = open
        .into_iter()
        .partition(|it| !it.state.is_switched() && it.attempts == 0);
    for deployment in begun {
        for waiting in &waiting {
            let front = &deployment.id;
            let what = format!("waiting for deployment `{front}` to finish");
            agent.say(&waiting.id, &what);
        }
        if deployment.state.is_switched() {
            forward(agent, app, &deployment).await?;
        } else if went_live::has(agent, &deployment).await? {
            let deployment = went_live::record(agent, &deployment).await?;
            forward(agent, app, &deployment).await?;
        } else {
            let mirror = fetch::mirror_of(agent, app);
            let _ = tokio::task::spawn_blocking(move || build::end_left(&mirror)).await;
            back(agent, &deployment).await?;
        }
    }
    let name = app.name.clone();
    let left = agent.store.write(move |db| retire::mark(db, &name)).await?;
    if left > 0 {
        tracing::info!(app = %app.name, count = left, "stopping left-over instances");
    }
    agent.retiring.notify_one();
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
            "`{}` has switched but has no release",
            deployment.id
        )));
    };
    tracing::info!(app = %app.name, deployment = %deployment.id, state = %deployment.state,
        "continuing a deployment after the switch");
    let line = Line::enter(agent, app, deployment.id.clone())?;
    line.log.mask(masks::of_app(agent, &app.name).await);
    line.log.line("the agent was restarted; continuing");
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

/// Removes the containers of jobs that have ended and those that Docker made after their instances had been
/// given up; returns how many. Both normally end with the removal of their container, so this is for what
/// a crash or Docker has left. Instances that nothing needs are left to the step that retires.
pub async fn orphans(agent: &Agent) -> std::result::Result<usize, EngineError> {
    let found = agent.engine.list().await?;
    let read = agent.store.read(move |db| {
        let mut left = Vec::new();
        for container in found {
            left.extend(of_ended_job(db, &container)?);
            left.extend(of_given_up(db, &container)?);
        }
        Ok(left)
    });
    let left = read.await?;
    for ours in &left {
        agent.engine.remove(ours).await?;
    }
    agent.store.write(given_up::prune).await?;
    Ok(left.len())
}

fn of_given_up(db: &Connection, container: &Found) -> Result<Option<Ours>> {
    match &container.mark {
        Some(mark) => given_up::get(db, &container.name, mark),
        None => Ok(None),
    }
}

/// The container, if the record names it as that of a job that has ended. Neither its labels nor its
/// name alone make a container ours.
fn of_ended_job(db: &Connection, container: &Found) -> Result<Option<Ours>> {
    let job = jobs::get(db, &container.name)?;
    let job = job.filter(|job| job.ended_at.is_some());
    Ok(job
        .map(|job| job.ours())
        .filter(|ours| ours.has(container.mark.as_deref())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ReleaseId;
    use crate::store::Store;
    use crate::store::fixture::release;
    use crate::store::instances::{self, Instance};
    use crate::store::jobs::{Job, JobKind};

    #[tokio::test]
    async fn only_what_our_record_names_is_removed_and_no_job_that_runs() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let id = release(db, 1)?.deployment;
            let name = format!("cutover-hello-{id}-release");
            let app = "hello".parse().unwrap();
            let release = ReleaseId::new();
            let job = Job::new(
                name.clone(),
                app,
                release,
                JobKind::Release,
                Some(id.clone()),
            );
            let found = |name: &str, mark: Option<&str>| {
                let container = Found {
                    name: name.into(),
                    mark: mark.map(str::to_owned),
                };
                of_ended_job(db, &container)
            };
            let mark = job.mark.as_deref();
            jobs::insert(db, &job)?;
            assert_eq!(found(&name, mark)?, None, "it runs");
            jobs::ended(db, &name, Some(0))?;
            assert_eq!(found(&name, mark)?, Some(job.ours()));

            // Run by hand from an image of ours, or from one that was committed from a container.
            assert_eq!(found("eager_lovelace", mark)?, None);
            // The name was free, and somebody took it.
            assert_eq!(found(&name, None)?, None);
            assert_eq!(found(&name, Some("other"))?, None);
            // Of a record that a backup does not hold, or that was lost.
            assert_eq!(
                found("cutover-hello-d0000000000009-0", Some("other"))?,
                None
            );

            // An earlier version gave no mark.
            db.execute("UPDATE jobs SET mark = NULL", [])?;
            assert!(found(&name, None)?.is_some());
            Ok(())
        });
        write.await.unwrap();
    }

    #[tokio::test]
    async fn what_docker_makes_after_its_instance_was_given_up_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let release = release(db, 1)?;
            let instance = Instance {
                name: "cutover-hello-d0000000000001-0".into(),
                app: release.app,
                release: release.id,
                service: crate::ids::ServiceName::web(),
                deployment: release.deployment,
                endpoint: None,
                mark: Some("m".into()),
                engine: None,
            };
            let found = |name: &str, mark: Option<&str>| {
                let container = Found {
                    name: name.into(),
                    mark: mark.map(str::to_owned),
                };
                super::of_given_up(db, &container)
            };
            let name = instance.name.as_str();
            instances::insert(db, &instance)?;
            assert_eq!(found(name, Some("m"))?, None, "it is needed");
            instances::delete(db, name)?;
            assert_eq!(found(name, Some("m"))?, Some(instance.ours()));
            assert_eq!(given_up::named(db, name)?, [instance.ours()]);
            // Somebody else's.
            for (name, mark) in [(name, Some("other")), (name, None), ("mine", Some("m"))] {
                assert_eq!(found(name, mark)?, None, "{name} {mark:?}");
            }
            // It was made, and live: what took it off has removed it, or must not.
            let seen = Instance {
                mark: Some("seen".into()),
                ..instance.clone()
            };
            instances::insert(db, &seen)?;
            instances::set_engine(db, name, "engine")?;
            instances::delete(db, name)?;
            assert_eq!(found(name, Some("seen"))?, None);
            // It was adopted.
            instances::insert(db, &instance)?;
            assert_eq!(found(name, Some("m"))?, None);
            instances::delete(db, name)?;
            given_up::prune(db)?;
            assert!(found(name, Some("m"))?.is_some());
            db.execute("UPDATE given_up SET at = 0", [])?;
            given_up::prune(db)?;
            assert_eq!(found(name, Some("m"))?, None);
            Ok(())
        });
        write.await.unwrap();
    }
}
