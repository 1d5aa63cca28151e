//! Brings an instance back that should serve and does not.

use std::time::Duration;

use super::live::{Live, record};
use crate::deploy::environment::{self, Purpose};
use crate::deploy::tend::Trouble;
use crate::deploy::{Agent, output};
use crate::engine::{Endpoint, EngineError, InstanceSpec, Result};
use crate::ids::ReleaseId;
use crate::store::apps;
use crate::store::releases::Release;

/// The deadline for making and starting an instance.
const REPAIR: Duration = Duration::from_secs(60);

/// Brings an instance back, if it is still needed and it is time for an attempt.
pub(super) async fn repair(agent: &Agent, it: Live, recorded: &[Endpoint]) {
    let instance = &it.instance;
    let name = &instance.name;
    let _turn = agent.tend.repairs.read().await;
    if !is_live(agent, &instance.release).await {
        return;
    }
    let Some(trouble) = agent.tend.begin_attempt(name) else {
        return;
    };
    let attempt = attempt(agent, &it, trouble, recorded);
    let failure = match tokio::time::timeout(REPAIR, attempt).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(explained(agent, &it, error).await),
        Err(_) => Some("Docker does not answer in time".to_owned()),
    };
    agent.tend.end_attempt(name, failure);
}

/// Whether the release is still live: it may have been replaced since the look.
async fn is_live(agent: &Agent, release: &ReleaseId) -> bool {
    let live = agent.store.read(apps::live_releases).await;
    live.is_ok_and(|live| live.contains(release))
}

async fn attempt(agent: &Agent, it: &Live, trouble: Trouble, recorded: &[Endpoint]) -> Result<()> {
    let (engine, instance) = (&agent.engine, &it.instance);
    let Some(service) = it.release.service(&instance.service) else {
        let (id, name) = (&it.release.id, &instance.service);
        let what = format!("the release `{id}` has no service `{name}`");
        return Err(EngineError::Stopped(what));
    };
    let name = &instance.name;
    let environment = environment::of(agent, &it.release, service, name, Purpose::App).await;
    let spec = InstanceSpec {
        instance,
        service,
        commit: &it.release.commit,
        volumes: &it.volumes,
        recorded,
        environment: &environment.map_err(|error| error.to_string()),
    };
    let brought_back = match trouble {
        Trouble::Paused => return engine.unpause(&instance.ours()).await,
        Trouble::Disconnected => engine.rejoin(&spec).await,
        _ => engine.start(&spec).await,
    };
    let endpoint = match brought_back {
        // Its network is gone, or its address is now another container's: a new container gets a new
        // address.
        Err(EngineError::Refused { .. }) if has_images(agent, &it.release).await? => {
            output::keep(agent, instance).await;
            engine.remake(&spec).await?
        }
        other => other?,
    };
    engine.keep_running(&instance.ours(), true).await?;
    if endpoint != instance.endpoint {
        record(agent, instance, endpoint).await?;
    }
    Ok(())
}

async fn has_images(agent: &Agent, release: &Release) -> Result<bool> {
    for service in &release.services {
        if !agent.engine.has_image(&service.image_id).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The error as a message for people, with what to do about it if a person has to act.
async fn explained(agent: &Agent, it: &Live, error: EngineError) -> String {
    if !matches!(has_images(agent, &it.release).await, Ok(false)) {
        return error.to_string();
    }
    let Release { app, commit, .. } = &*it.release;
    let commit = commit.short();
    format!("its image was removed; run `cutover deploy {app} --ref {commit}` to build it again")
}
