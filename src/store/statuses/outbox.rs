//! What waits to be sent, and what came of sending it.

use rusqlite::Connection;

use super::{ForgeStatus, from_row};
use crate::store::{Result, now};

/// How often sending one may fail before later ones of its app are sent ahead of it.
pub(super) const PATIENCE: u32 = 5;

/// What may be sent next: of each app the status that is due first, and the waiting deployment that
/// is oldest, due or not, since forges show the deployment that was made last first. One that failed
/// too often holds up no other; those are sent when they are due.
pub fn waiting(db: &Connection) -> Result<Vec<ForgeStatus>> {
    let mut query = db.prepare_cached(
        // Of the other columns SQLite takes the row of the minimum.
        "SELECT *, min(due_at) FROM reports
         WHERE told < revision AND (kind = 'status' OR attempts >= ?1) GROUP BY app, kind
         UNION ALL
         SELECT *, min(deployment) FROM reports
         WHERE told < revision AND kind = 'deployment' AND attempts < ?1 GROUP BY app
         ORDER BY due_at",
    )?;
    let rows = query.query_map([PATIENCE], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The forge has the revision that was read as `report`. A later one is due at once.
pub fn set_told(db: &Connection, report: &ForgeStatus) -> Result<()> {
    settle(db, report, None)
}

/// The forge will never take the revision that was read as `report`; the sentence says why.
pub fn set_refused(db: &Connection, report: &ForgeStatus, why: &str) -> Result<()> {
    settle(db, report, Some(why))
}

fn settle(db: &Connection, report: &ForgeStatus, error: Option<&str>) -> Result<()> {
    db.prepare_cached(
        "UPDATE reports SET told = ?4, error = ?5, attempts = 0, due_at = ?6
         WHERE kind = ?1 AND subject = ?2 AND commit_id = ?3",
    )?
    .execute((
        report.kind.as_str(),
        report.subject(),
        report.commit.as_str(),
        report.revision,
        error,
        now(),
    ))?;
    Ok(())
}

/// It could not be sent, and is due again later.
pub fn set_later(db: &Connection, report: &ForgeStatus, due_at: i64, why: &str) -> Result<()> {
    db.prepare_cached(
        "UPDATE reports SET attempts = attempts + 1, due_at = ?4, error = ?5
         WHERE kind = ?1 AND subject = ?2 AND commit_id = ?3",
    )?
    .execute((
        report.kind.as_str(),
        report.subject(),
        report.commit.as_str(),
        due_at,
        why,
    ))?;
    Ok(())
}

/// The forge is about to be asked for its own deployment.
pub fn set_asked(db: &Connection, report: &ForgeStatus) -> Result<()> {
    let update = "UPDATE reports SET asked = 1
                  WHERE kind = 'deployment' AND subject = ?1 AND commit_id = ?2";
    db.execute(update, (report.subject(), report.commit.as_str()))?;
    Ok(())
}

pub fn set_forge_id(db: &Connection, report: &ForgeStatus, forge_id: &str) -> Result<()> {
    let update = "UPDATE reports SET forge_id = ?3
                  WHERE kind = 'deployment' AND subject = ?1 AND commit_id = ?2";
    db.execute(update, (report.subject(), report.commit.as_str(), forge_id))?;
    Ok(())
}
