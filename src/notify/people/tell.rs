//! Hands events on to the receivers that want them, and sends what waits for each, in order.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::message::Message;
use super::send::{Problem, send};
use crate::config::{Config, Notifier};
use crate::deploy::Agent;
use crate::notify::forge::{backoff, page};
use crate::outbound::Outbound;
use crate::store::events::{self, Event, HAPPENED, TELLING};
use crate::store::{self, Result, deployments, outbox};

/// How often the outbox is checked without a wake-up, in case one was missed.
const POLL: Duration = Duration::from_secs(60);
/// How long a message is retried before it is given up.
const GIVE_UP: i64 = 24 * 3600 * 1000;

/// What became of a test.
pub struct Told {
    pub name: String,
    /// Why the receiver was not told.
    pub error: Option<String>,
}

/// Sends until it is dropped, which is safe at any time: what was not recorded as sent is sent again.
pub async fn start(agent: Arc<Agent>) {
    let outbound = match Outbound::new() {
        Ok(outbound) => outbound,
        Err(error) => {
            tracing::error!("nobody is notified until the agent is restarted: {error}");
            return;
        }
    };
    let mut changes = agent.hub.changes();
    loop {
        changes.mark_unchanged();
        let pause = match turn(&agent, &outbound).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(%error, "failed to read or write what people are told");
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Hands on and sends what is due; returns when to look again.
async fn turn(agent: &Agent, outbound: &Outbound) -> Result<Duration> {
    let in_force = agent.in_force();
    let config = &in_force.config;
    while hand_on(agent, config).await? {}
    let waiting = agent.store.read(|db| outbox::waiting(db, &TELLING)).await?;
    let (due, later): (Vec<_>, Vec<_>) = waiting
        .into_iter()
        .partition(|message| message.due_at <= store::now());
    if due.is_empty() {
        let next = later
            .iter()
            .map(|message| message.due_at - store::now())
            .min();
        let next = next.map(|left| Duration::from_millis(left.max(1) as u64));
        return Ok(next.map_or(POLL, |next| next.min(POLL)));
    }
    for told in join_all(due.into_iter().map(|it| tell(agent, outbound, config, it))).await {
        told?;
    }
    Ok(Duration::ZERO)
}

/// Hands one event of each app on; returns whether there was any.
async fn hand_on(agent: &Agent, config: &Config) -> Result<bool> {
    let waiting = agent
        .store
        .read(|db| outbox::waiting(db, &HAPPENED))
        .await?;
    let any = !waiting.is_empty();
    for message in waiting {
        let receivers = match (
            serde_json::from_str::<Event>(&message.payload),
            message.key.parse(),
        ) {
            (Ok(event), Ok(app)) => {
                let wants = |(name, it): (&String, &Arc<Notifier>)| {
                    it.wants(event.what, &app).then(|| name.clone())
                };
                config.notify.iter().filter_map(wants).collect()
            }
            // Of a newer version.
            _ => Vec::new(),
        };
        let write = move |db: &_| events::hand_on(db, &message, &receivers);
        agent.store.write(write).await?;
    }
    Ok(any)
}

/// Tells one receiver, and records the outcome.
async fn tell(
    agent: &Agent,
    outbound: &Outbound,
    config: &Config,
    waiting: outbox::Message,
) -> Result<()> {
    let name = waiting.key.clone();
    let outcome = match (
        config.notify.get(&name),
        read(agent, config, &waiting).await?,
    ) {
        (Some(notifier), Some(message)) => sent(outbound, notifier, &message).await,
        (None, _) => Err(Problem::Refused("it is no longer in deploy.toml".into())),
        (_, None) => Ok(()),
    };
    let outcome = match outcome {
        Err(Problem::Later { why, .. }) if store::now() - waiting.since > GIVE_UP => {
            Err(Problem::Refused(format!("given up after a day: {why}")))
        }
        outcome => outcome,
    };
    match outcome {
        Ok(()) => agent
            .store
            .write(move |db| outbox::settle(db, &waiting))
            .await
            .map(drop),
        Err(Problem::Refused(why)) => {
            tracing::warn!(receiver = name, "a notification was not delivered: {why}");
            agent
                .store
                .write(move |db| outbox::settle(db, &waiting))
                .await
                .map(drop)
        }
        Err(Problem::Later { wait, why }) => {
            if waiting.attempts == 0 {
                tracing::info!(receiver = name, "a notification will be sent again: {why}");
            }
            let pause = wait.unwrap_or_else(|| backoff(waiting.attempts));
            let due_at = store::now() + pause.as_millis() as i64;
            agent
                .store
                .write(move |db| outbox::postpone(db, &waiting, due_at))
                .await
        }
    }
}

/// The event that waits, with what is known about it now; `None` if its deployment is gone.
async fn read(
    agent: &Agent,
    config: &Config,
    waiting: &outbox::Message,
) -> Result<Option<Message>> {
    let Ok(event) = serde_json::from_str::<Event>(&waiting.payload) else {
        return Ok(None);
    };
    let id = event.deployment.clone();
    let found = agent
        .store
        .read(move |db| deployments::get(db, &id))
        .await?;
    Ok(found.map(|deployment| {
        let id = format!("msg_{}_{}", deployment.id, event.at);
        let link = page(config, &deployment.id);
        Message::new(id, event.what, &deployment, event.at, link)
    }))
}

async fn sent(
    outbound: &Outbound,
    to: &Notifier,
    message: &Message,
) -> std::result::Result<(), Problem> {
    let (url, secret) = (to.url.clone(), to.secret.clone());
    // Secrets are read from files, which may be slow.
    let read = tokio::task::spawn_blocking(move || {
        let secret = secret.map(|secret| secret.read_text()).transpose()?;
        Ok::<_, crate::config::SecretError>((url.read_text()?, secret))
    });
    let later = |why: String| Problem::Later { wait: None, why };
    let read = read.await.map_err(|error| later(error.to_string()))?;
    let (url, secret) = read.map_err(|error| later(error.to_string()))?;
    let now = store::now() / 1000;
    let sent = message
        .sent(to.kind, secret.as_deref(), now)
        .map_err(Problem::Refused)?;
    send(outbound, &url, sent).await
}

/// Sends a test to one receiver, or to all; `None` if there is none of this name.
pub async fn test(
    agent: &Agent,
    only: Option<&str>,
) -> std::result::Result<Option<Vec<Told>>, String> {
    let outbound = Outbound::new()?;
    let in_force = agent.in_force();
    let all = in_force.config.notify.iter();
    let chosen: Vec<_> = all
        .filter(|(name, _)| only.is_none_or(|only| only == *name))
        .collect();
    if chosen.is_empty() && only.is_some() {
        return Ok(None);
    }
    let message = Message::test(store::now());
    let told = chosen.into_iter().map(|(name, notifier)| {
        let (outbound, message) = (&outbound, &message);
        async move {
            let outcome = sent(outbound, notifier, message).await;
            Told {
                name: name.clone(),
                error: outcome.err().map(|problem| problem.why().to_owned()),
            }
        }
    });
    Ok(Some(join_all(told).await))
}
