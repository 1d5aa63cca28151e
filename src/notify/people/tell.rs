//! Hands events on to the receivers that want them, and sends what waits for each, in order. What happens
//! while a receiver is told, or right after, comes as one message.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::choice::{Choice, choose};
use super::kind::{Keys, request};
use super::message::Message;
use super::send::{Problem, send};
use super::{email, message};
use crate::config::{Config, Notifier, NotifierKind, NotifyEvent, SecretError};
use crate::deploy::Agent;
use crate::notify::forge::{backoff, home, page};
use crate::outbound::Outbound;
use crate::store::events::{self, Event, HAPPENED, TELLING};
use crate::store::{self, Result, deployments, outbox, unreached};

/// How often the outbox is checked without a wake-up, in case one was missed.
const POLL: Duration = Duration::from_secs(60);
/// How long a message is retried before it is given up.
const GIVE_UP: i64 = 24 * 3600 * 1000;
/// The least time between two messages to a receiver of people, in milliseconds: what happens meanwhile
/// is one message.
const GATHERS: i64 = 5_000;

/// Sends until it is dropped, which is safe at any time: what was not recorded as sent is sent again.
pub async fn start(agent: Arc<Agent>) {
    let outbound = match Outbound::new() {
        Ok(outbound) => Arc::new(outbound),
        Err(error) => {
            tracing::error!("nobody is notified until the agent is restarted: {error}");
            return;
        }
    };
    let mut changes = agent.hub.changes();
    let mut sending = JoinSet::new();
    // Until when nothing more is sent to a receiver; i64::MAX while it is being told. A restart forgets
    // it and sends once more.
    let mut held: HashMap<String, i64> = HashMap::new();
    loop {
        changes.mark_unchanged();
        let pause = match next(&agent, &held).await {
            Ok((due, pause)) => {
                for (name, batch) in due {
                    held.insert(name.clone(), i64::MAX);
                    sending.spawn(tell(agent.clone(), outbound.clone(), name, batch));
                }
                pause
            }
            Err(error) => {
                tracing::warn!(%error, "failed to read or write what people are told");
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            _ = changes.changed() => {}
            Some(ended) = sending.join_next() => match ended {
                Ok((name, until)) => drop(held.insert(name, until)),
                Err(error) => {
                    // Which receiver the task had is not known: start over with all of them.
                    tracing::error!(%error, "a task that tells people failed");
                    sending.shutdown().await;
                    held.clear();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

type Due = Vec<(String, Vec<outbox::Message>)>;

/// Hands on what happened; returns what is due, and when to look again.
async fn next(agent: &Agent, held: &HashMap<String, i64>) -> Result<(Due, Duration)> {
    let in_force = agent.in_force();
    let config = &in_force.config;
    while hand_on(agent, config).await? {}
    let waiting = agent.store.read(|db| outbox::all(db, &TELLING)).await?;
    let mut by_receiver: BTreeMap<String, Vec<outbox::Message>> = BTreeMap::new();
    for message in waiting {
        by_receiver
            .entry(message.key.clone())
            .or_default()
            .push(message);
    }
    let (mut due, mut pause) = (Due::new(), POLL);
    let now = store::now();
    for (name, waiting) in by_receiver {
        let until = held.get(&name).copied().unwrap_or_default();
        let to = config.notify.get(&name).map(Arc::as_ref);
        let Choice { batch, next } = choose(waiting, to, until, now);
        if !batch.is_empty() {
            due.push((name, batch));
        }
        if let Some(at) = next {
            pause = pause.min(Duration::from_millis((at.saturating_sub(now)).max(1) as u64));
        }
    }
    Ok((due, pause))
}

/// Hands one event of each app on; returns whether there was any.
async fn hand_on(agent: &Agent, config: &Config) -> Result<bool> {
    let waiting = agent
        .store
        .read(|db| outbox::waiting(db, &HAPPENED))
        .await?;
    let any = !waiting.is_empty();
    for message in waiting {
        let app = message.key.parse().ok();
        let receivers = match serde_json::from_str::<Event>(&message.payload) {
            Ok(event) => {
                let about = event.said.as_ref().map_or(event.what, |said| said.about);
                let wants = |(name, it): (&String, &Arc<Notifier>)| {
                    let wanted =
                        it.wants(event.what, app.as_ref()) && it.wants(about, app.as_ref());
                    wanted.then(|| name.clone())
                };
                config.notify.iter().filter_map(wants).collect()
            }
            // Of a newer version.
            Err(_) => Vec::new(),
        };
        let write = move |db: &_| events::hand_on(db, &message, &receivers);
        agent.store.write(write).await?;
    }
    Ok(any)
}

/// Tells one receiver, and records the outcome. Returns until when nothing more is to be sent to it.
async fn tell(
    agent: Arc<Agent>,
    outbound: Arc<Outbound>,
    name: String,
    batch: Vec<outbox::Message>,
) -> (String, i64) {
    match tell_and_record(&agent, &outbound, &name, batch).await {
        Ok(until) => (name, until),
        Err(error) => {
            tracing::warn!(%error, "failed to read or write what people are told");
            (name, store::now() + 1000)
        }
    }
}

async fn tell_and_record(
    agent: &Agent,
    outbound: &Outbound,
    name: &str,
    batch: Vec<outbox::Message>,
) -> Result<i64> {
    let in_force = agent.in_force();
    let config = &in_force.config;
    let mut messages = Vec::new();
    for waiting in &batch {
        messages.extend(read(agent, config, waiting).await?);
    }
    let is_sent = !messages.is_empty();
    let outcome = match config.notify.get(name) {
        None => Err(Problem::Refused("it is no longer in deploy.toml".into())),
        Some(_) if messages.is_empty() => Ok(()),
        Some(to) => {
            let message = message::Message::group(messages, home(config));
            deliver(outbound, to, &message).await
        }
    };
    let (given_up, again): (Vec<_>, Vec<_>) = match &outcome {
        Err(Problem::Later { .. }) => {
            let oldest = store::now() - GIVE_UP;
            batch.into_iter().partition(|it| it.since < oldest)
        }
        _ => (batch, Vec::new()),
    };
    if let Err(problem) = &outcome
        && !given_up.is_empty()
    {
        let (count, why) = (given_up.len(), problem.why());
        tracing::warn!(
            receiver = name,
            count,
            "a notification was not delivered: {why}"
        );
    }
    let attempts = again.iter().map(|it| it.attempts).max();
    let wait = match &outcome {
        Err(Problem::Later { wait, .. }) => *wait,
        _ => None,
    };
    let pause = wait.unwrap_or_else(|| backoff(attempts.unwrap_or_default()));
    let due_at = store::now() + pause.as_millis() as i64;
    if let (Some(0), Err(problem)) = (attempts, &outcome) {
        let why = problem.why();
        tracing::info!(receiver = name, "a notification will be sent again: {why}");
    }
    let (receiver, is_known) = (name.to_owned(), config.notify.contains_key(name));
    let failed = (outcome.as_ref().err()).map(|problem| problem.why().to_owned());
    let record = move |db: &_| {
        match &failed {
            Some(why) if is_known => unreached::failed(db, &receiver, why)?,
            None if !is_sent => {}
            _ => unreached::forget(db, &receiver)?,
        }
        for message in &given_up {
            outbox::settle(db, message)?;
        }
        again
            .iter()
            .try_for_each(|it| outbox::postpone(db, it, due_at))
    };
    agent.store.write(record).await?;
    let groups = config.notify.get(name).is_some_and(|to| to.kind.groups());
    Ok(match outcome {
        Ok(()) if groups => store::now() + GATHERS,
        // Not even what comes new is sent before the time that the receiver named.
        Err(_) if wait.is_some() => due_at,
        _ => 0,
    })
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
    if let Some(said) = &event.said {
        let id = format!("msg_{}_{}", event.what, event.at);
        let app = said.app.as_ref().map(crate::ids::AppName::as_str);
        let link = home(config).map(|home| match app {
            Some(app) => format!("{home}apps/{app}"),
            None => format!("{home}server"),
        });
        return Ok(Some(Message::said(
            id, event.what, said, app, event.at, link,
        )));
    }
    let Some(id) = event.deployment.clone() else {
        return Ok(None);
    };
    let found = agent
        .store
        .read(move |db| deployments::get(db, &id))
        .await?;
    Ok(found.map(|deployment| {
        let id = format!("msg_{}_{}", deployment.id, event.at);
        let link = page(config, &deployment.id);
        let mut message = Message::new(id, event.what, &deployment, event.at, link);
        if event.what == NotifyEvent::Crashing {
            let mut why = agent.tend.differences(Some(deployment.app.as_str()));
            why.truncate(3);
            message
                .text
                .extend(why.iter().map(|why| format!("\n{why}")));
            message.data["problems"] = why.into();
        }
        message
    }))
}

/// Tells one receiver now.
pub async fn deliver(
    outbound: &Outbound,
    to: &Notifier,
    message: &Message,
) -> std::result::Result<(), Problem> {
    let (url, secret, user) = (to.url.clone(), to.secret.clone(), to.user.clone());
    let chat = to.chat.clone();
    // Secrets are read from files, which may be slow.
    let read = tokio::task::spawn_blocking(move || {
        let text = |it: Option<crate::config::Secret>| it.map(|it| it.read_text()).transpose();
        Ok::<_, SecretError>(Keys {
            url: text(url)?,
            secret: text(secret)?,
            user: text(user)?,
            chat,
        })
    });
    let later = |why: String| Problem::Later { wait: None, why };
    let read = read.await.map_err(|error| later(error.to_string()))?;
    let keys = read.map_err(|error| later(error.to_string()))?;
    if let (NotifierKind::Email, Some(from)) = (to.kind, &to.from) {
        let url = keys.url.as_deref().unwrap_or_default();
        return email::send(message, url, from, &to.to).await;
    }
    let now = store::now() / 1000;
    let sent = request(to.kind, message, &keys, now).map_err(Problem::Refused)?;
    send(outbound, sent).await
}
