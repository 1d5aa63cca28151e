//! The journal of a deployment: one row per step, `started` before its effect, `done` after it.

use rusqlite::Connection;
use serde::Serialize;

use super::{Result, now};
use crate::ids::DeploymentId;
use crate::state::Step;

#[derive(Debug, Clone, Serialize)]
pub struct Record {
    pub name: String,
    /// `started`, `done`, `failed`, or `stopped` if it was under way when its deployment ended.
    pub state: String,
    pub started_at: i64,
    pub ended_at: Option<i64>,
    pub detail: Option<String>,
}

pub fn started(db: &Connection, id: &DeploymentId, step: Step) -> Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO steps (deployment, name, position, state, started_at)
         VALUES (?1, ?2, ?3, 'started', ?4)
         ON CONFLICT (deployment, name) DO UPDATE SET
            state = 'started', started_at = ?4, ended_at = NULL, detail = NULL",
    )?;
    upsert.execute((id.as_str(), step.as_str(), step as i64, now()))?;
    Ok(())
}

pub fn done(db: &Connection, id: &DeploymentId, step: Step, detail: &str) -> Result<()> {
    ended(db, id, step, "done", detail)
}

pub fn failed(db: &Connection, id: &DeploymentId, step: Step, detail: &str) -> Result<()> {
    ended(db, id, step, "failed", detail)
}

fn ended(db: &Connection, id: &DeploymentId, step: Step, state: &str, detail: &str) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE steps SET state = ?3, ended_at = ?4, detail = ?5
         WHERE deployment = ?1 AND name = ?2",
    )?;
    update.execute((id.as_str(), step.as_str(), state, now(), detail))?;
    Ok(())
}

/// Ends what is under way when its deployment ends.
pub(super) fn stop(db: &Connection, id: &DeploymentId, why: &str) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE steps SET state = 'stopped', ended_at = ?2, detail = ?3
         WHERE deployment = ?1 AND state = 'started'",
    )?;
    update.execute((id.as_str(), now(), why))?;
    Ok(())
}

/// Deletes the steps of an attempt that was undone and will run again.
pub fn forget(db: &Connection, id: &DeploymentId) -> Result<()> {
    db.execute("DELETE FROM steps WHERE deployment = ?1", [id.as_str()])?;
    Ok(())
}

/// The steps of a deployment, in the order in which they run.
pub fn of(db: &Connection, id: &DeploymentId) -> Result<Vec<Record>> {
    let mut query = db.prepare_cached(
        "SELECT name, state, started_at, ended_at, detail FROM steps
         WHERE deployment = ?1 ORDER BY position",
    )?;
    let rows = query.query_map([id.as_str()], |row| {
        Ok(Record {
            name: row.get("name")?,
            state: row.get("state")?,
            started_at: row.get("started_at")?,
            ended_at: row.get("ended_at")?,
            detail: row.get("detail")?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
