//! What became of each ref that a push moved, whether it came by webhook, by post-receive hook or by
//! git over HTTP.

use rusqlite::Connection;

use super::{Result, json, parsed, to_json};
use crate::ids::{AppName, CommitId, DeliveryId, DeploymentId, MovedRefId};
use crate::principal::Requester;

pub struct MovedRef<'a> {
    pub app: &'a AppName,
    /// The delivery that reported the push, if it came by webhook.
    pub delivery: Option<&'a DeliveryId>,
    pub git_ref: &'a str,
    pub old: Option<&'a CommitId>,
    /// `None` if the ref was deleted.
    pub new: Option<&'a CommitId>,
    pub deployment: Option<&'a DeploymentId>,
    /// Why it is not deployed, or why an earlier deployment stands for it.
    pub reason: Option<&'a str>,
    pub requested_by: &'a Requester,
}

pub fn insert(db: &Connection, moved: &MovedRef<'_>) -> Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO moved_refs
            (id, app, delivery, ref, old, new, deployment, reason, requested_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    insert.execute((
        MovedRefId::new().as_str(),
        moved.app.as_str(),
        moved.delivery.map(DeliveryId::as_str),
        moved.git_ref,
        moved.old.map(CommitId::as_str),
        moved.new.map(CommitId::as_str),
        moved.deployment.map(DeploymentId::as_str),
        moved.reason,
        to_json(moved.requested_by)?,
    ))?;
    Ok(())
}

/// What is recorded of a ref.
pub struct Recorded {
    pub id: MovedRefId,
    pub delivery: Option<String>,
    pub git_ref: String,
    pub old: Option<String>,
    pub new: Option<String>,
    pub deployment: Option<String>,
    pub reason: Option<String>,
    pub requested_by: Requester,
}

/// A page of an app's, newest first, older than the id `before`.
pub fn list(
    db: &Connection,
    app: &AppName,
    before: Option<&str>,
    limit: usize,
) -> Result<Vec<Recorded>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM moved_refs WHERE app = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3",
    )?;
    let rows = query.query_map((app.as_str(), before.unwrap_or("~"), limit as i64), |row| {
        Ok(Recorded {
            id: parsed(row, "id")?,
            delivery: row.get("delivery")?,
            git_ref: row.get("ref")?,
            old: row.get("old")?,
            new: row.get("new")?,
            deployment: row.get("deployment")?,
            reason: row.get("reason")?,
            requested_by: json(row, "requested_by")?.unwrap_or(Requester::Agent),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
