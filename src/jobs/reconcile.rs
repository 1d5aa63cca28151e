//! Keeps live releases serving: compares what should run (the database) with what does run (the engine,
//! the route table) at start, on the engine's events, when the engine comes back, and every ten seconds.
//!
//! A container that crashed is left to the engine's restart policy, which also works while no agent
//! runs; everything else that keeps a container from serving is repaired here. Until a container serves
//! again, its route does not lead to it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt, stream};
use tokio::net::TcpStream;

use crate::deploy::tend::Trouble;
use crate::deploy::{Agent, routes};
use crate::engine::{Endpoint, EngineError, Look, Result, Run};
use crate::store::instances;
use crate::store::releases;
use crate::store::volumes::{self, Volume};
use crate::store::{apps, outages};

mod live;
mod repair;

use live::{Live, record};
use repair::repair;

const PERIOD: Duration = Duration::from_secs(10);
/// An engine that takes longer than this to answer counts as unreachable.
const LOOK: Duration = Duration::from_secs(5);
/// How many instances are looked at, or brought back, at the same time.
const AT_ONCE: usize = 8;
/// The deadline for a connection: an app on this machine accepts sooner, if it accepts at all.
const CONNECT: Duration = Duration::from_millis(250);

pub async fn reconcile(agent: Arc<Agent>) {
    loop {
        agent.wait_for_engine().await;
        agent.engine.started_again();
        match agent.engine.id().await {
            Ok(id) => agent.tend.engine_is(id),
            Err(error) => tracing::debug!(%error, "Docker does not say its id"),
        }
        if let Ok(events) = agent.engine.events() {
            while_it_answers(&agent, events).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Reconciles until the engine can no longer be reached.
async fn while_it_answers(agent: &Agent, mut events: stream::BoxStream<'static, ()>) {
    let mut everything = true;
    let mut whole = Instant::now();
    loop {
        match pass(agent, everything).await {
            Ok(()) if everything => whole = Instant::now(),
            Ok(()) => {}
            Err(EngineError::Unreachable { .. }) => return,
            Err(error) => tracing::warn!(%error, "cannot look after what is live yet"),
        }
        let pause = agent.tend.pause(PERIOD);
        tokio::select! {
            event = events.next() => match event {
                Some(()) => everything = true,
                None => return,
            },
            () = agent.tend.switched.notified() => everything = true,
            () = tokio::time::sleep(pause) => everything = whole.elapsed() >= PERIOD,
        }
        while let Some(Some(())) = events.next().now_or_never() {}
    }
}

/// Looks at every instance that should serve, or only at those known not to serve, then publishes the
/// routes if they changed and repairs what does not serve.
async fn pass(agent: &Agent, everything: bool) -> Result<()> {
    let (live, recorded) = what_should_run(agent).await?;
    let names: HashSet<_> = live.iter().map(|it| it.instance.name.as_str()).collect();
    agent.tend.keep_only(&names);
    let mut worth = live.clone();
    worth.retain(|it| everything || agent.tend.is_down(&it.instance.name));
    let looks = stream::iter(worth).map(|it| look(agent, it));
    let looks: Vec<Result<(Live, Look)>> = looks.buffered(AT_ONCE).collect().await;
    let mut changed = false;
    for looked in looks {
        let (it, look) = looked?;
        changed |= judge(agent, &it, &look).await?;
    }
    if changed {
        publish(agent).await?;
    }
    report(agent).await?;
    let repairs = stream::iter(live).map(|it| repair(agent, it, &recorded));
    repairs.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    Ok(())
}

/// Reports releases that began to crash, or run again, to whoever is told of their deployments.
async fn report(agent: &Agent) -> Result<()> {
    let crashing = agent.tend.crashing();
    let known = agent.store.read(outages::open).await?;
    if crashing == known {
        return Ok(());
    }
    let write = agent.store.write(move |db| {
        for app in crashing.difference(&known) {
            outages::begin(db, app)?;
        }
        for app in known.difference(&crashing) {
            outages::end(db, app)?;
        }
        Ok(())
    });
    write.await?;
    agent.hub.changed();
    Ok(())
}

async fn look(agent: &Agent, it: Live) -> Result<(Live, Look)> {
    let ours = it.instance.ours();
    match tokio::time::timeout(LOOK, agent.engine.look(&ours)).await {
        Ok(look) => Ok((it, look?)),
        Err(_) => Err(EngineError::Unreachable {
            host: agent.in_force().config.docker.host.clone(),
            cause: "it does not answer in time".into(),
        }),
    }
}

async fn what_should_run(agent: &Agent) -> Result<(Vec<Live>, Vec<Endpoint>)> {
    let read = agent.store.read(|db| {
        let all = instances::all(db)?.into_iter();
        let recorded = all.filter_map(|it| it.endpoint).collect();
        let mut volumes: HashMap<String, Vec<Volume>> = HashMap::new();
        for volume in volumes::all(db)? {
            if let Some(instance) = volume.instance.clone() {
                volumes.entry(instance).or_default().push(volume);
            }
        }
        let mut live = Vec::new();
        for id in apps::live_releases(db)? {
            if let Some(release) = releases::get(db, &id)?.map(Arc::new) {
                let of = instances::of_release(db, &id)?.into_iter();
                live.extend(of.map(|instance| Live {
                    volumes: volumes.remove(&instance.name).unwrap_or_default().into(),
                    instance,
                    release: release.clone(),
                }));
            }
        }
        Ok((live, recorded))
    });
    Ok(read.await?)
}

/// Records what the look found. Returns whether the route table must change.
async fn judge(agent: &Agent, it: &Live, look: &Look) -> Result<bool> {
    let instance = &it.instance;
    let (end, out_of_memory) = (ended(look), look.out_of_memory);
    agent
        .tend
        .count_restarts(instance, look.restarts, end, out_of_memory);
    let paths = look.volumes.iter().map(|(_, path)| path.clone());
    agent.tend.has_volumes(instance, paths.collect());
    if look.run != Run::Missing {
        record_found(agent, it, look).await?;
    }
    let port = it.release.service(&instance.service).and_then(|it| it.port);
    let endpoint = match (port, look.address) {
        (Some(port), Some(address)) => Some(Endpoint::new(address, port)),
        _ => None,
    };
    let mut moved = false;
    if look.run == Run::Running && endpoint.is_some() && endpoint != instance.endpoint {
        record(agent, instance, endpoint).await?;
        moved = true;
    }
    let mut found = match elsewhere(agent, it, look) {
        Some(detail) => Some((Trouble::Elsewhere, detail)),
        None => trouble(look, port.is_some()),
    };
    if found.is_none()
        && agent.tend.is_down(&instance.name)
        && let Some(endpoint) = endpoint
        && !accepts(endpoint).await
    {
        found = Some((Trouble::Starting, "does not accept connections yet".into()));
    }
    Ok(agent.tend.take(instance, found) || moved)
}

/// Records the volumes of an instance, and the engine that it is on: both are needed once it is gone.
async fn record_found(agent: &Agent, it: &Live, look: &Look) -> Result<()> {
    let instance = it.instance.clone();
    let known = |name: &str| it.volumes.iter().any(|volume| volume.name == name);
    let found = look.volumes.iter().filter(|(name, _)| !known(name));
    let new: Vec<_> = found
        .map(|(name, path)| Volume {
            name: name.clone(),
            app: instance.app.clone(),
            release: instance.release.clone(),
            path: path.clone(),
            instance: Some(instance.name.clone()),
        })
        .collect();
    let engine = agent.tend.engine_id();
    let engine = engine.filter(|id| instance.engine.as_ref() != Some(id));
    if new.is_empty() && engine.is_none() {
        return Ok(());
    }
    let write = agent.store.write(move |db| {
        new.iter()
            .try_for_each(|volume| volumes::insert(db, volume))?;
        match engine {
            Some(id) => instances::set_engine(db, &instance.name, &id),
            None => Ok(()),
        }
    });
    Ok(write.await?)
}

/// What to say about an instance that is not there because another engine answers now. It is not made
/// again: it may well be serving.
fn elsewhere(agent: &Agent, it: &Live, look: &Look) -> Option<String> {
    let (was, is) = (it.instance.engine.as_ref()?, agent.tend.engine_id()?);
    if look.run != Run::Missing || *was == is {
        return None;
    }
    let host = agent.in_force().config.docker.host.clone();
    let app = &it.instance.app;
    Some(format!(
        "was started by the Docker Engine `{was}`, but `{host}` is the engine `{is}` now: set `docker.host` \
         back, or run `cutover deploy {app}` to start it here"
    ))
}

fn ended(look: &Look) -> String {
    match look.out_of_memory {
        true => "was killed because it used more memory than its `memory` limit allows".to_owned(),
        false => format!("ended with exit code {}", look.exit_code),
    }
}

fn trouble(look: &Look, has_port: bool) -> Option<(Trouble, String)> {
    let ended = ended(look);
    match look.run {
        Run::Running if has_port && look.address.is_none() => {
            let what = "was disconnected from its network";
            Some((Trouble::Disconnected, what.into()))
        }
        Run::Running => None,
        Run::Paused => Some((Trouble::Paused, "was paused".into())),
        Run::Restarting => Some((Trouble::Crashed, ended)),
        Run::Exited => Some((Trouble::Stopped, ended)),
        Run::Missing => Some((Trouble::Removed, "was removed".into())),
    }
}

async fn accepts(endpoint: Endpoint) -> bool {
    let connect = tokio::time::timeout(CONNECT, TcpStream::connect(endpoint));
    matches!(connect.await, Ok(Ok(_)))
}

async fn publish(agent: &Agent) -> Result<()> {
    let published = routes::publish_anew(agent).await;
    published
        .map_err(|error| EngineError::Stopped(format!("failed to publish the routes: {error}")))
}
