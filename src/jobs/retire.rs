//! Stops the instances that nothing needs any more. What is to stop stands in the database, so a restart
//! of the agent continues it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use crate::deploy::{Agent, retire_instance};
use crate::engine::EngineError;
use crate::ids::{AppName, ReleaseId};
use crate::store::instances::{self, Instance};

/// How many instances of an app are stopped at the same time.
const AT_ONCE: usize = 16;
/// How many old releases of an app may take the whole of their `stop_grace`. An app that does not want
/// to end, and is deployed again and again, would fill the machine.
const RELEASES: usize = 3;
/// How often the database is read without a wake-up, in case one was missed.
const POLL: Duration = Duration::from_secs(30);
/// The pause after an instance could not be stopped; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// An instance that could not be stopped yet.
struct Refused {
    why: String,
    attempts: u32,
    not_before: Instant,
}

pub async fn retire(agent: Arc<Agent>) {
    let mut stopping = FuturesUnordered::new();
    let mut busy: HashMap<String, (AppName, CancellationToken)> = HashMap::new();
    let mut refused: HashMap<String, Refused> = HashMap::new();
    loop {
        let found = agent.store.read(instances::retiring).await;
        let found = found.unwrap_or_else(|error| {
            tracing::warn!(%error, "failed to read which instances are to be stopped");
            Vec::new()
        });
        refused.retain(|name, _| found.iter().any(|it| it.name == *name));
        let hurried = hurried(&found);
        for (name, (app, hurry)) in &busy {
            if hurried.contains(name) && !hurry.is_cancelled() {
                tracing::warn!(%app, container = name, "killed before its `stop_grace` was over: {RELEASES} newer \
                    versions of the app are stopping too");
                hurry.cancel();
            }
        }
        let now = Instant::now();
        let mut pause = POLL;
        for instance in found {
            let due = refused.get(&instance.name).map(|it| it.not_before);
            if let Some(left) = due.and_then(|due| due.checked_duration_since(now)) {
                pause = pause.min(left);
            } else if !busy.contains_key(&instance.name)
                && busy
                    .values()
                    .filter(|(app, _)| *app == instance.app)
                    .count()
                    < AT_ONCE
            {
                let hurry = CancellationToken::new();
                if hurried.contains(&instance.name) {
                    hurry.cancel();
                }
                busy.insert(instance.name.clone(), (instance.app.clone(), hurry.clone()));
                stopping.push(stop(&agent, instance, hurry));
            }
        }
        tokio::select! {
            () = agent.retiring.notified() => {}
            Some((instance, outcome)) = stopping.next() => {
                busy.remove(&instance.name);
                match outcome {
                    // Its image may not be needed either.
                    Ok(()) => agent.hub.wake(&instance.app),
                    Err(error) => note(&mut refused, &instance, &error),
                }
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The instances of releases beyond those that may take their time.
fn hurried(found: &[Instance]) -> HashSet<String> {
    let mut newer: HashMap<&AppName, Vec<&ReleaseId>> = HashMap::new();
    let mut hurried = HashSet::new();
    // The newest first.
    for instance in found.iter().rev() {
        let releases = newer.entry(&instance.app).or_default();
        if releases.contains(&&instance.release) {
            continue;
        }
        match releases.len() < RELEASES {
            true => releases.push(&instance.release),
            false => drop(hurried.insert(instance.name.clone())),
        }
    }
    hurried
}

async fn stop(
    agent: &Agent,
    instance: Instance,
    hurry: CancellationToken,
) -> (Instance, Result<(), EngineError>) {
    let begun = Instant::now();
    let outcome = retire_instance(agent, &instance, &hurry).await;
    if outcome.is_ok() {
        let ms = begun.elapsed().as_millis() as u64;
        tracing::info!(app = %instance.app, container = instance.name, ms, "stopped an old instance");
    }
    (instance, outcome)
}

/// Logs why an instance could not be stopped, unless that is known, and tries again later.
fn note(refused: &mut HashMap<String, Refused>, instance: &Instance, error: &EngineError) {
    let why = error.to_string();
    let before = refused.get(&instance.name);
    if before.is_none_or(|before| before.why != why) {
        tracing::warn!(app = %instance.app, container = instance.name, "cannot stop an old instance yet: {why}");
    }
    let attempts = before.map_or(0, |before| before.attempts);
    let pause = FIRST_PAUSE.saturating_mul(1 << attempts.min(9));
    let next = Refused {
        why,
        attempts: attempts + 1,
        not_before: Instant::now() + pause.min(LONGEST_PAUSE),
    };
    refused.insert(instance.name.clone(), next);
}
