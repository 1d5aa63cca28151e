//! What happened to apps that somebody may want to be told: written in the transaction of the change, then
//! handed on to each receiver that wants it.

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::outbox::{self, Message, Order, Topic};
use super::{Result, now, to_json};
use crate::config::NotifyEvent;
use crate::ids::{AppName, DeploymentId};
use crate::state::State;

/// Not yet handed on; the key is the app.
pub const HAPPENED: Topic = Topic {
    name: "event",
    order: Order::OldestFirst { patience: u32::MAX },
};
/// For one receiver, which is the key.
pub const TELLING: Topic = Topic {
    name: "notification",
    order: Order::OldestFirst { patience: 3 },
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub what: NotifyEvent,
    /// The deployment that it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<DeploymentId>,
    /// In words, if it happened to no deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Said>,
    /// In milliseconds since 1970.
    pub at: i64,
}

/// What happened to the server, or to what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// What it is about: that something is over is told to whoever is told of it.
    pub about: NotifyEvent,
    pub app: Option<AppName>,
    pub title: String,
    pub text: String,
}

/// Records that something happened to the server.
pub fn said(db: &Connection, what: NotifyEvent, said: Said) -> Result<()> {
    // No app has an empty name.
    let key = said.app.clone().map_or_else(String::new, String::from);
    let event = Event {
        what,
        deployment: None,
        said: Some(said),
        at: now(),
    };
    outbox::append(db, &HAPPENED, &key, &to_json(&event)?)
}

/// Records that something happened to a deployment, or to what it made live.
pub fn happened(
    db: &Connection,
    app: &AppName,
    deployment: &DeploymentId,
    what: NotifyEvent,
) -> Result<()> {
    let event = Event {
        what,
        deployment: Some(deployment.clone()),
        said: None,
        at: now(),
    };
    outbox::append(db, &HAPPENED, app.as_str(), &to_json(&event)?)
}

/// The same of a deployment that has come to rest.
pub(super) fn ended(db: &Connection, deployment: &DeploymentId, state: State) -> Result<()> {
    let mut query = db.prepare_cached("SELECT app FROM deployments WHERE id = ?1")?;
    let app: AppName = query.query_row([deployment.as_str()], |row| super::parsed(row, "app"))?;
    let what = match state {
        State::Live if was_bad(db, &app, deployment)? => NotifyEvent::Recovered,
        State::Live => NotifyEvent::Live,
        State::Failed => NotifyEvent::Failed,
        State::RolledBack => NotifyEvent::RolledBack,
        State::Stuck => NotifyEvent::Stuck,
        _ => return Ok(()),
    };
    happened(db, &app, deployment, what)
}

/// Whether the last deployment of the app that counts did not stay live.
fn was_bad(db: &Connection, app: &AppName, before: &DeploymentId) -> Result<bool> {
    let mut query = db.prepare_cached(
        "SELECT state FROM deployments WHERE app = ?1 AND id < ?2
           AND state IN ('live', 'failed', 'rolled_back', 'stuck') ORDER BY id DESC LIMIT 1",
    )?;
    let found = query.query_row((app.as_str(), before.as_str()), |row| {
        super::parsed::<State>(row, "state")
    });
    Ok(found.optional()?.is_some_and(|state| state != State::Live))
}

/// Hands an event on to these receivers.
pub fn hand_on(db: &Connection, event: &Message, receivers: &[String]) -> Result<()> {
    for receiver in receivers {
        outbox::append(db, &TELLING, receiver, &event.payload)?;
    }
    outbox::settle(db, event).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Event as Change;
    use crate::store::Store;
    use crate::store::deployments;
    use crate::store::fixture::release;

    #[tokio::test]
    async fn each_event_is_handed_on_once_to_each_receiver() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let failed = release(db, 1)?.deployment;
            deployments::end(db, &failed, Change::Fail, None)?;
            let cancelled = release(db, 1)?.deployment;
            deployments::end(db, &cancelled, Change::Cancel, None)?;
            let waiting = outbox::waiting(db, &HAPPENED)?;
            assert_eq!(waiting.len(), 1);
            let event: Event = serde_json::from_str(&waiting[0].payload).unwrap();
            assert_eq!(
                (event.what, event.deployment),
                (NotifyEvent::Failed, Some(failed))
            );
            hand_on(db, &waiting[0], &["ops".into(), "ci".into()])?;
            assert!(outbox::waiting(db, &HAPPENED)?.is_empty());
            assert_eq!(outbox::waiting(db, &TELLING)?.len(), 2);
            // What goes live after it has recovered.
            let next = release(db, 1)?.deployment;
            assert!(was_bad(db, &"hello".parse().unwrap(), &next)?);
            Ok(())
        });
        write.await.unwrap();
    }
}
