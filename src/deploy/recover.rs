//! The one place that cleans up after a crash. It runs at start, before an app's worker, and again
//! when a deployment could not be written down.
//!
//! - Before the switch: what was made is taken away, and the deployment runs again from the start;
//!   its image is found in the cache, so that this costs little and the push is not lost. After
//!   three attempts it is given up.
//! - From the switch on: forward to the end.
//! - Containers with this agent's label that no row knows, and rows without a container that should
//!   run, are put right.

use std::collections::HashSet;

use super::line::{Line, Stop};
use super::steps::retire;
use super::{Agent, Result, run, undo};
use crate::config::App;
use crate::engine::{EngineError, InstanceSpec, Status};
use crate::ids::AppName;
use crate::store::deployments::{self, Deployment};
use crate::store::{StoreError, apps, instances, releases};

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
    if let Err(error) = undo::take_away(agent, &deployment.id).await {
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
    let stopped = |error: StoreError| EngineError::Stopped(error.to_string());
    let name = app.clone();
    let found = agent.store.read(move |db| {
        let Some(live) = apps::serving(db, &name)?.live else {
            return Ok(None);
        };
        Ok(releases::get(db, &live)?.map(|release| (release, instances::of_release(db, &live))))
    });
    let Some((release, instances)) = found.await.map_err(stopped)? else {
        return Ok(());
    };
    let network = agent.engine.network().await?;
    for instance in &instances.map_err(stopped)? {
        if agent.engine.status(&instance.name).await? != Status::Running {
            tracing::warn!(%app, container = instance.name, "the live release did not run; starting it");
            let Some(service) = release.service(&instance.service) else {
                let (id, name) = (&release.id, &instance.service);
                let what = format!("the release `{id}` has no service `{name}`");
                return Err(EngineError::Stopped(what));
            };
            let spec = InstanceSpec {
                instance,
                service,
                network: &network,
            };
            agent.engine.start(&spec).await?;
            agent.engine.keep_running(&instance.name, true).await?;
        }
    }
    Ok(())
}

/// Removes containers that carry this agent's label and that neither a row nor an open deployment
/// knows; says how many.
pub async fn orphans(agent: &Agent) -> std::result::Result<usize, EngineError> {
    let stopped = |error: StoreError| EngineError::Stopped(error.to_string());
    let found = agent.engine.list().await?;
    let known = agent.store.read(|db| {
        let rows = instances::all(db)?
            .into_iter()
            .map(|instance| instance.name);
        let open = deployments::open(db)?
            .into_iter()
            .map(|deployment| deployment.id);
        Ok((rows.collect::<HashSet<_>>(), open.collect::<HashSet<_>>()))
    });
    let (rows, open) = known.await.map_err(stopped)?;
    let mut count = 0;
    for container in found {
        let busy = container
            .deployment
            .as_ref()
            .is_some_and(|id| open.contains(id));
        if !rows.contains(&container.name) && !busy {
            agent.engine.remove(&container.name).await?;
            count += 1;
        }
    }
    Ok(count)
}
