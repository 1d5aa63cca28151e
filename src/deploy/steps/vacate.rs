//! Stop the old release before the new one starts, for apps of which two releases must not run at a time
//! (`strategy = "recreate"`). Part of the start: that the live release makes room is recorded with the
//! start's intent, the switch forgets it, and the start's undo brings the old release back. Meanwhile
//! requests wait in the proxy, for up to `proxy.hold`.

use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use rusqlite::Connection;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::instance::{Started, start_one};
use crate::deploy::line::{Line, Stop};
use crate::deploy::tend::Trouble;
use crate::deploy::{Agent, routes, words};
use crate::engine::{Endpoint, EngineError, Status};
use crate::ids::{AppName, DeploymentId};
use crate::store::instances::{self, Instance};
use crate::store::releases::{self, Release};
use crate::store::{StoreError, apps, deployments};

/// The pause between two looks at whether the old release serves again, and between two attempts to say so
/// to the proxy.
const LOOK: Duration = Duration::from_millis(50);

/// Records that the live release makes room for a deployment.
pub fn intend(db: &Connection, app: &AppName, id: &DeploymentId) -> Result<(), StoreError> {
    match apps::serving(db, app)?.live {
        Some(_) => apps::set_vacated(db, app, Some(id)),
        None => Ok(()),
    }
}

/// Returns once nothing of the app runs but what belongs to `release`.
pub async fn vacate(line: &Line<'_>, release: &Release) -> Result<(), Stop> {
    let agent = line.agent;
    let (app, new) = (release.app.clone(), release.id.clone());
    let read = agent.store.read(move |db| {
        let mut old = Vec::new();
        for instance in instances::beside(db, &app, &new)? {
            let release = releases::get(db, &instance.release)?;
            let service = release
                .as_ref()
                .and_then(|it| it.service(&instance.service));
            let grace = service.map_or(Duration::ZERO, |it| it.settings.stop_grace);
            old.push((instance, grace));
        }
        Ok((apps::serving(db, &app)?.generation, old))
    });
    let (generation, old) = read.await?;
    if old.is_empty() {
        return Ok(());
    }
    line.log
        .line("[start] the old version stops first; requests wait");
    let began = Instant::now();
    line.insist("take the old version out of the routes", || {
        routes::publish(agent)
    })
    .await;
    let (name, limit) = (line.app.name.as_str(), line.app.deploy.drain);
    // WebSockets are closed at once: they last, and new requests wait for their end.
    let drain = || (agent.proxy).drain(name, generation, limit, Duration::ZERO);
    line.insist("drain the old version", drain).await;
    // A repair that was begun before ends first.
    drop(agent.tend.repairs.write().await);
    let stop =
        async |(it, grace): &(Instance, Duration)| agent.engine.stop(&it.ours(), *grace).await;
    try_join_all(old.iter().map(stop)).await?;
    // On this machine's own network the new release has the same address.
    let shared = old
        .iter()
        .filter(|(it, _)| it.endpoint.is_some_and(|at| at.ip().is_loopback()));
    let shared: Vec<_> = shared.map(|(it, _)| it.name.clone()).collect();
    let forget = move |db: &Connection| {
        shared
            .iter()
            .try_for_each(|name| instances::set_endpoint(db, name, None))
    };
    agent.store.write(forget).await?;
    let (count, ms) = (old.len() as u64, began.elapsed().as_millis());
    let what = words::counted(count, "old instance");
    line.log.line(&format!("[start] {what} stopped in {ms} ms"));
    Ok(())
}

/// Brings the live release back, if it made room for the deployment. Returns once it serves, or will not:
/// then the reconciler goes on.
pub async fn undo(agent: &Agent, id: &DeploymentId) -> Result<(), EngineError> {
    let of = id.clone();
    let read = agent.store.read(move |db| vacated(db, &of));
    let Some((app, release, old, recorded)) = read.await? else {
        return Ok(());
    };
    if let Some(release) = &release
        && !old.is_empty()
    {
        agent.say(id, "the old version starts again");
        let all = old
            .iter()
            .map(|it| bring_back(agent, release, it, &recorded));
        for back in join_all(all).await {
            back?;
        }
        agent.say(id, "the old version runs again");
    }
    let write = agent
        .store
        .write(move |db| apps::set_vacated(db, &app, None));
    write.await?;
    while let Err(error) = routes::publish(agent).await {
        tracing::warn!(deployment = %id, %error, "failed to publish the route; retrying");
        tokio::time::sleep(LOOK * 10).await;
    }
    agent.tend.switched.notify_one();
    Ok(())
}

type Vacated = (AppName, Option<Release>, Vec<Instance>, Vec<Endpoint>);

/// What made room for the deployment, and every recorded endpoint.
fn vacated(db: &Connection, id: &DeploymentId) -> Result<Option<Vacated>, StoreError> {
    let Some(deployment) = deployments::get(db, id)? else {
        return Ok(None);
    };
    let app = deployment.app;
    if apps::vacated(db, &app)?.as_ref() != Some(id) {
        return Ok(None);
    }
    let live = apps::serving(db, &app)?.live;
    let release = live.map(|live| releases::get(db, &live)).transpose()?;
    let release = release.flatten();
    let old = match &release {
        Some(release) => instances::of_release(db, &release.id)?,
        None => Vec::new(),
    };
    let all = instances::all(db)?.into_iter();
    let recorded = all.filter_map(|it| it.endpoint).collect();
    Ok(Some((app, release, old, recorded)))
}

/// An error only if the engine does not answer.
async fn bring_back(
    agent: &Agent,
    release: &Release,
    instance: &Instance,
    recorded: &[Endpoint],
) -> Result<(), EngineError> {
    let name = &instance.name;
    let endpoint = match start_one(agent, release, instance, recorded).await {
        Ok(Started::Before) => instance.endpoint,
        Ok(Started::Now(endpoint)) => endpoint,
        Err(Stop::Interrupted(cause)) => {
            let host = agent.engine.host().to_owned();
            return Err(EngineError::Unreachable { host, cause });
        }
        Err(stop) => {
            tracing::warn!(
                container = name,
                ?stop,
                "the old version does not start again"
            );
            let detail = "could not be started again".to_owned();
            agent.tend.take(instance, Some((Trouble::Stopped, detail)));
            return Ok(());
        }
    };
    if endpoint != instance.endpoint {
        let of = name.clone();
        let write = agent
            .store
            .write(move |db| instances::set_endpoint(db, &of, endpoint));
        write.await?;
    }
    let service = release.service(&instance.service);
    let deadline = service.map_or(Duration::ZERO, |it| it.settings.health.deadline);
    let deadline = Instant::now() + deadline;
    while let Some(endpoint) = endpoint {
        let connected = tokio::time::timeout(LOOK * 5, TcpStream::connect(endpoint)).await;
        if matches!(connected, Ok(Ok(_))) {
            break;
        }
        let runs = agent.engine.status(&instance.ours()).await? == Status::Running;
        if !runs || Instant::now() > deadline {
            let detail = "does not accept connections yet".to_owned();
            agent.tend.take(instance, Some((Trouble::Starting, detail)));
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
