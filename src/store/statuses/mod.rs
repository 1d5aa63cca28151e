//! What is reported to forges: one row for each commit status and for each of a forge's own
//! deployments. A row says what is true now, not what happened: it changes in the transaction that
//! changes the deployment's state, and the same transaction puts a message about it into the outbox.

use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::outbox::{self, Message, Order, Topic};
use super::{Result, parsed, to_json};
use crate::ids::{AppName, CommitId, DeploymentId};

mod kind;
mod phase;
mod truth;

pub use kind::StatusKind;
pub use phase::StatusPhase;
pub(super) use truth::{changed, left};

/// How often sending the status of one deployment may fail before the statuses of the app's later
/// deployments are sent ahead of it.
const PATIENCE: u32 = 5;

/// Commit statuses are independent of each other. Forges list the deployment that was created last
/// first, so the deployments of an app are created in order.
pub const TOPICS: [Topic; 2] = [
    Topic {
        name: "commit-status",
        order: Order::Any,
    },
    Topic {
        name: "deployment-status",
        order: Order::OldestFirst { patience: PATIENCE },
    },
];

/// A status to report to a forge.
#[derive(Debug, Clone)]
pub struct ForgeStatus {
    pub kind: StatusKind,
    pub app: AppName,
    pub commit: CommitId,
    /// The deployment that it is about.
    pub deployment: DeploymentId,
    pub phase: StatusPhase,
    /// Whether the forge has been asked to create its own deployment; it may not have answered.
    pub asked: bool,
    /// The forge's id of its own deployment.
    pub forge_id: Option<String>,
    /// Why the last attempt to report it failed, or why the forge refused it.
    pub error: Option<String>,
    /// Whether the forge has this status, or has permanently refused it; otherwise a message waits in
    /// the outbox.
    pub told: bool,
}

impl ForgeStatus {
    /// What the row is about: each commit of an app has one status, and each deployment of ours has
    /// one deployment of the forge's.
    fn subject(&self) -> &str {
        match self.kind {
            StatusKind::Commit => self.app.as_str(),
            StatusKind::Deployment => self.deployment.as_str(),
        }
    }
}

fn topic(kind: StatusKind) -> &'static Topic {
    match kind {
        StatusKind::Commit => &TOPICS[0],
        StatusKind::Deployment => &TOPICS[1],
    }
}

/// The payload of a message: it identifies the row that holds the current status.
#[derive(Serialize, Deserialize)]
struct About {
    deployment: DeploymentId,
    commit: CommitId,
}

/// Records, at the agent's start and at each reload, which apps report to a forge, each with whether
/// the forge's own deployments are wanted too. What waits for any other app is dropped; the rest is due
/// at once, since whoever restarted or reloaded the agent may have fixed what delayed it.
pub fn set_reporting(db: &Connection, apps: &[(AppName, bool)]) -> Result<()> {
    db.execute("DELETE FROM reporting", [])?;
    for (app, deployments) in apps {
        let insert = "INSERT INTO reporting (app, deployments) VALUES (?1, ?2)";
        db.execute(insert, (app.as_str(), deployments))?;
    }
    db.execute(
        "DELETE FROM statuses WHERE NOT told AND NOT EXISTS
            (SELECT 1 FROM reporting r WHERE r.app = statuses.app
             AND (statuses.kind = 'status' OR r.deployments))",
        [],
    )?;
    let names = TOPICS.map(|topic| topic.name);
    db.execute(
        "DELETE FROM outbox WHERE topic IN (?1, ?2) AND NOT EXISTS
            (SELECT 1 FROM reporting r WHERE r.app = key AND (topic = ?1 OR r.deployments))",
        names,
    )?;
    outbox::hurry(db)
}

/// Moves the waiting messages of an app to its new name.
pub(super) fn rename(db: &Connection, old: &AppName, new: &AppName) -> Result<()> {
    let names = TOPICS.map(|topic| topic.name);
    db.execute(
        "UPDATE OR REPLACE outbox SET key = ?4 WHERE topic IN (?1, ?2) AND key = ?3",
        (names[0], names[1], old.as_str(), new.as_str()),
    )?;
    Ok(())
}

/// The statuses that are reported for a deployment.
pub fn of(db: &Connection, id: &DeploymentId) -> Result<Vec<ForgeStatus>> {
    let mut query = db
        .prepare_cached("SELECT * FROM statuses WHERE deployment = ?1 ORDER BY kind DESC, since")?;
    let rows = query.query_map([id.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The messages that may be sent next, ordered by due time.
pub fn waiting(db: &Connection) -> Result<Vec<Message>> {
    let mut all = Vec::new();
    for topic in &TOPICS {
        all.extend(outbox::waiting(db, topic)?);
    }
    all.sort_by_key(|message| message.due_at);
    Ok(all)
}

/// The status that a message is about; `None` if there is nothing left to report.
pub fn of_message(db: &Connection, message: &Message) -> Result<Option<ForgeStatus>> {
    let kinds = [StatusKind::Commit, StatusKind::Deployment];
    let kind = kinds
        .into_iter()
        .find(|kind| topic(*kind).name == message.topic);
    let about = serde_json::from_str::<About>(&message.payload);
    let (Some(kind), Ok(about)) = (kind, about) else {
        return Ok(None);
    };
    let subject = match kind {
        StatusKind::Commit => message.key.as_str(),
        StatusKind::Deployment => about.deployment.as_str(),
    };
    let mut query = db.prepare_cached(
        "SELECT * FROM statuses WHERE kind = ?1 AND subject = ?2 AND commit_id = ?3",
    )?;
    let found = query.query_row((kind.as_str(), subject, about.commit.as_str()), from_row);
    Ok(found.optional()?)
}

/// Puts a message about what has changed into the outbox.
fn tell(
    db: &Connection,
    kind: StatusKind,
    app: &AppName,
    deployment: DeploymentId,
    commit: CommitId,
) -> Result<()> {
    // Deployment ids sort by time, so these subjects keep the statuses in order.
    let subject = match kind {
        StatusKind::Commit => commit.to_string(),
        StatusKind::Deployment => format!("{deployment} {commit}"),
    };
    let payload = to_json(&About { deployment, commit })?;
    outbox::put(db, topic(kind), app.as_str(), &subject, &payload)
}

/// Records that the forge has received `message`. If the status has changed since, the newer message is
/// due at once.
pub fn set_told(db: &Connection, message: &Message, status: &ForgeStatus) -> Result<()> {
    settle(db, message, status, None)
}

/// Records that the forge will never accept `message`, and why.
pub fn set_refused(
    db: &Connection,
    message: &Message,
    status: &ForgeStatus,
    why: &str,
) -> Result<()> {
    settle(db, message, status, Some(why))
}

fn settle(
    db: &Connection,
    message: &Message,
    status: &ForgeStatus,
    error: Option<&str>,
) -> Result<()> {
    let told = outbox::settle(db, message)?;
    db.prepare_cached(
        "UPDATE statuses SET told = ?4, error = ?5
         WHERE kind = ?1 AND subject = ?2 AND commit_id = ?3",
    )?
    .execute((
        status.kind.as_str(),
        status.subject(),
        status.commit.as_str(),
        told,
        error,
    ))?;
    Ok(())
}

/// Records that the message could not be sent, and why. It is due again at `due_at`, in milliseconds
/// since 1970.
pub fn set_later(
    db: &Connection,
    message: &Message,
    status: &ForgeStatus,
    due_at: i64,
    why: &str,
) -> Result<()> {
    outbox::postpone(db, message, due_at)?;
    db.prepare_cached(
        "UPDATE statuses SET error = ?4 WHERE kind = ?1 AND subject = ?2 AND commit_id = ?3",
    )?
    .execute((
        status.kind.as_str(),
        status.subject(),
        status.commit.as_str(),
        why,
    ))?;
    Ok(())
}

/// Records that the forge is about to be asked to create its own deployment.
pub fn set_asked(db: &Connection, status: &ForgeStatus) -> Result<()> {
    let update = "UPDATE statuses SET asked = 1
                  WHERE kind = 'deployment' AND subject = ?1 AND commit_id = ?2";
    db.execute(update, (status.subject(), status.commit.as_str()))?;
    Ok(())
}

pub fn set_forge_id(db: &Connection, status: &ForgeStatus, forge_id: &str) -> Result<()> {
    let update = "UPDATE statuses SET forge_id = ?3
                  WHERE kind = 'deployment' AND subject = ?1 AND commit_id = ?2";
    db.execute(update, (status.subject(), status.commit.as_str(), forge_id))?;
    Ok(())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<ForgeStatus> {
    Ok(ForgeStatus {
        kind: parsed(row, "kind")?,
        app: parsed(row, "app")?,
        commit: parsed(row, "commit_id")?,
        deployment: parsed(row, "deployment")?,
        phase: parsed(row, "phase")?,
        told: row.get("told")?,
        asked: row.get("asked")?,
        forge_id: row.get("forge_id")?,
        error: row.get("error")?,
    })
}

#[cfg(test)]
mod tests;
