//! The outbox to the forges: a row for each commit status and each of a forge's own deployments. A
//! row says what is true now, not what happened: it changes in the transaction in which the
//! deployment's state does, and what was overtaken before it could be sent is never sent.

use rusqlite::{Connection, Row};

use super::{Result, now, parsed};
use crate::ids::{AppName, CommitId, DeploymentId};

mod kind;
mod outbox;
mod phase;
mod truth;

pub use kind::StatusKind;

pub use outbox::{set_asked, set_forge_id, set_later, set_refused, set_told, waiting};
pub use phase::StatusPhase;
pub(super) use truth::{changed, left};

/// What a forge is to be told, and how far that came.
#[derive(Debug, Clone)]
pub struct ForgeStatus {
    pub kind: StatusKind,
    pub app: AppName,
    pub commit: CommitId,
    /// The deployment that it speaks of.
    pub deployment: DeploymentId,
    pub phase: StatusPhase,
    /// Rises with each change of deployment or phase.
    pub revision: i64,
    /// The last revision that the forge has, or has refused for good.
    pub told: i64,
    /// When this revision came to be.
    pub since: i64,
    /// When it is to be sent.
    pub due_at: i64,
    /// How often in a row sending it failed.
    pub attempts: u32,
    /// Whether the forge may have been asked already to make its own deployment.
    pub asked: bool,
    /// The forge's id of its own deployment.
    pub forge_id: Option<String>,
    /// Why it could not be told, last.
    pub error: Option<String>,
}

impl ForgeStatus {
    pub fn is_waiting(&self) -> bool {
        self.told < self.revision
    }

    /// What the row is about: of statuses each commit of an app has one, of the forge's deployments
    /// each of ours has one.
    fn subject(&self) -> &str {
        match self.kind {
            StatusKind::Commit => self.app.as_str(),
            StatusKind::Deployment => self.deployment.as_str(),
        }
    }
}

/// Says at the agent's start which apps tell a forge: each with whether the forge's own deployments
/// are wanted too. What waits for any other app is dropped; the rest is due at once, since whoever
/// restarts the agent may have mended what kept it.
pub fn set_reporting(db: &Connection, apps: &[(AppName, bool)]) -> Result<()> {
    db.execute("DELETE FROM reporting", [])?;
    for (app, deployments) in apps {
        let insert = "INSERT INTO reporting (app, deployments) VALUES (?1, ?2)";
        db.execute(insert, (app.as_str(), deployments))?;
    }
    db.execute(
        "DELETE FROM reports WHERE told < revision AND NOT EXISTS
            (SELECT 1 FROM reporting r WHERE r.app = reports.app
             AND (reports.kind = 'status' OR r.deployments))",
        [],
    )?;
    let update = "UPDATE reports SET due_at = ?1, attempts = 0 WHERE told < revision";
    db.execute(update, [now()])?;
    Ok(())
}

/// What is told of a deployment.
pub fn of(db: &Connection, id: &DeploymentId) -> Result<Vec<ForgeStatus>> {
    let mut query =
        db.prepare_cached("SELECT * FROM reports WHERE deployment = ?1 ORDER BY kind DESC, since")?;
    let rows = query.query_map([id.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<ForgeStatus> {
    Ok(ForgeStatus {
        kind: parsed(row, "kind")?,
        app: parsed(row, "app")?,
        commit: parsed(row, "commit_id")?,
        deployment: parsed(row, "deployment")?,
        phase: parsed(row, "phase")?,
        revision: row.get("revision")?,
        told: row.get("told")?,
        since: row.get("since")?,
        due_at: row.get("due_at")?,
        attempts: row.get("attempts")?,
        asked: row.get("asked")?,
        forge_id: row.get("forge_id")?,
        error: row.get("error")?,
    })
}

#[cfg(test)]
mod tests;
