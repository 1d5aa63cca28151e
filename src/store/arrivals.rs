//! What arrived for an app, for people: every ref that a push moved, and the webhook deliveries that moved
//! none, newest first.

use rusqlite::Connection;

use super::{Result, json};
use crate::ids::{AppName, stamped_at};
use crate::principal::Requester;

#[derive(Debug, Clone)]
pub struct Arrival {
    /// Where the list goes on: later ones are greater.
    pub id: String,
    /// In milliseconds since 1970.
    pub at: i64,
    pub delivery: Option<String>,
    /// The forge of a delivery that moved no ref, and what it reported.
    pub forge: Option<String>,
    pub event: Option<String>,
    pub git_ref: Option<String>,
    pub new: Option<String>,
    pub deployment: Option<String>,
    pub reason: Option<String>,
    pub by: Option<Requester>,
}

/// Ids begin with a letter for their kind; what follows sorts by time.
const LIST: &str = "
    SELECT substr(id, 2) AS place, * FROM (
        SELECT id, delivery, NULL AS forge, NULL AS event, ref, new, deployment, reason, requested_by
        FROM moved_refs WHERE app = ?1 AND id < 'm' || ?2 ORDER BY id DESC LIMIT ?3)
    UNION ALL
    SELECT substr(id, 2), * FROM (
        SELECT id, id, forge, event, NULL, NULL, deployment, reason, NULL
        FROM deliveries d WHERE app = ?1 AND id < 'w' || ?2 AND deployment IS NULL
            AND NOT EXISTS (SELECT 1 FROM moved_refs m WHERE m.delivery = d.id)
        ORDER BY id DESC LIMIT ?3)
    ORDER BY place DESC LIMIT ?3";

/// A page of an app's, older than `before`.
pub fn list(
    db: &Connection,
    app: &AppName,
    before: Option<&str>,
    limit: usize,
) -> Result<Vec<Arrival>> {
    let mut query = db.prepare_cached(LIST)?;
    let rows = query.query_map((app.as_str(), before.unwrap_or("~"), limit as i64), |row| {
        let id: String = row.get("id")?;
        Ok(Arrival {
            at: stamped_at(&id),
            // The two kinds differ in their first letter, and the list goes on behind both.
            id: id.get(1..).unwrap_or_default().to_owned(),
            delivery: row.get("delivery")?,
            forge: row.get("forge")?,
            event: row.get("event")?,
            git_ref: row.get("ref")?,
            new: row.get("new")?,
            deployment: row.get("deployment")?,
            reason: row.get("reason")?,
            by: json(row, "requested_by")?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
