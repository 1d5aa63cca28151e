//! Sends what is due in the outbox, and retries what could not be sent.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::forge::Forges;
use crate::deploy::Agent;
use crate::store;
use crate::store::statuses;

/// The most messages in flight at once, over all keys; each key has at most one.
const AT_ONCE: usize = 8;
/// How often the outbox is checked without a wake-up, in case one was missed.
const POLL: Duration = Duration::from_secs(60);

/// Sends until it is dropped, which is safe at any time: what was not recorded as sent is sent again.
pub async fn start(agent: Arc<Agent>) {
    match Forges::new() {
        Ok(forges) => run(&agent, Arc::new(forges)).await,
        Err(error) => tracing::error!(
            "failed to start sending; no notifications are sent until the agent is restarted: {error}"
        ),
    }
}

async fn run(agent: &Arc<Agent>, forges: Arc<Forges>) {
    let mut changes = agent.hub.changes();
    let mut sending = JoinSet::new();
    let mut busy = HashSet::new();
    // Until when the receivers of these keys asked for a pause. A restart forgets it and sends once
    // more.
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
                tracing::warn!(%error, "failed to read the outbox");
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
                    // Which key the task had is not known: start over with all of them.
                    tracing::error!(%error, "a task that sends messages failed");
                    sending.shutdown().await;
                    busy.clear();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            () = tokio::time::sleep(pause) => {}
        }
    }
}
