//! Stops the instances that nothing needs any more. What is to stop stands in the database, so a restart
//! of the agent continues it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::deploy::{Agent, retire_instance};
use crate::engine::EngineError;
use crate::store::instances::{self, Instance};

/// How many instances are stopped at the same time.
const AT_ONCE: usize = 16;
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
    let mut busy = HashSet::new();
    let mut refused: HashMap<String, Refused> = HashMap::new();
    loop {
        let found = agent.store.read(instances::retiring).await;
        let found = found.unwrap_or_else(|error| {
            tracing::warn!(%error, "failed to read which instances are to be stopped");
            Vec::new()
        });
        refused.retain(|name, _| found.iter().any(|it| it.name == *name));
        let now = Instant::now();
        let mut pause = POLL;
        for instance in found {
            let due = refused.get(&instance.name).map(|it| it.not_before);
            if let Some(left) = due.and_then(|due| due.checked_duration_since(now)) {
                pause = pause.min(left);
            } else if busy.len() < AT_ONCE && busy.insert(instance.name.clone()) {
                stopping.push(stop(&agent, instance));
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

async fn stop(agent: &Agent, instance: Instance) -> (Instance, Result<(), EngineError>) {
    let begun = Instant::now();
    let outcome = retire_instance(agent, &instance).await;
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
