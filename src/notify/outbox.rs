//! Empties the outbox: sends what is due, as its topic says, and sends again what could not be sent.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::forge::Forges;
use crate::deploy::Agent;
use crate::store;
use crate::store::statuses;

/// Messages under way at once, over all keys; of one key there is one.
const AT_ONCE: usize = 8;
/// How often it looks without having been woken, should a wake-up ever be missed.
const POLL: Duration = Duration::from_secs(60);

/// Sends for ever. Dropping it is always safe: what was not marked as told is sent again.
pub async fn start(agent: Arc<Agent>) {
    let in_force = agent.in_force();
    let config = &in_force.config;
    let reporting = config.apps.values().filter_map(|app| {
        let report = app.report.as_ref()?;
        let deployments = report.deployments && report.address.forge.has_deployments();
        Some((app.name.clone(), deployments))
    });
    let reporting: Vec<_> = reporting.collect();
    let nobody = reporting.is_empty();
    let set = move |db: &rusqlite::Connection| statuses::set_reporting(db, &reporting);
    if let Err(error) = agent.store.write(set).await {
        tracing::error!(%error, "no forge is told anything until the next start");
        return;
    }
    if nobody {
        return;
    }
    match Forges::new() {
        Ok(forges) => run(&agent, Arc::new(forges)).await,
        Err(error) => tracing::error!("no forge is told anything until the next start: {error}"),
    }
}

async fn run(agent: &Arc<Agent>, forges: Arc<Forges>) {
    let mut changes = agent.hub.changes();
    let mut sending = JoinSet::new();
    let mut busy = HashSet::new();
    // Keys whose receiver asked for a pause, until when. Lost in a restart, which asks once too often.
    let mut held: HashMap<String, i64> = HashMap::new();
    loop {
        changes.mark_unchanged();
        let mut pause = POLL;
        match agent.store.read(statuses::waiting).await {
            Ok(waiting) => {
                let now = store::now();
                held.retain(|_, until| *until > now);
                for message in waiting {
                    if sending.len() >= AT_ONCE || busy.contains(&message.key) {
                        continue;
                    }
                    let until = held.get(&message.key).copied().unwrap_or_default();
                    let left = message.due_at.max(until) - now;
                    if left <= 0 {
                        let (agent, forges) = (agent.clone(), forges.clone());
                        busy.insert(message.key.clone());
                        sending.spawn(async move {
                            let until = forges.tell(&agent, &message).await;
                            (message.key, until)
                        });
                    } else {
                        pause = pause.min(Duration::from_millis(left as u64));
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look for what the forges are to be told");
                pause = Duration::from_secs(1);
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
            Some(ended) = sending.join_next() => match ended {
                Ok((key, until)) => {
                    busy.remove(&key);
                    held.extend(until.map(|until| (key, until)));
                }
                Err(error) => {
                    // Which key it was is not known any more; all of them look again.
                    tracing::error!(%error, "telling a forge broke");
                    sending.shutdown().await;
                    busy.clear();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            () = tokio::time::sleep(pause) => {}
        }
    }
}
