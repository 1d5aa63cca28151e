//! Up to which time each schedule has been looked after.

use rusqlite::{Connection, OptionalExtension};

use super::Result;
use crate::ids::{AppName, ServiceName};

/// The time in milliseconds since 1970, and the schedule that it was by.
pub fn seen(db: &Connection, app: &AppName, name: &ServiceName) -> Result<Option<(i64, String)>> {
    let mut query =
        db.prepare_cached("SELECT seen, schedule FROM crons WHERE app = ?1 AND name = ?2")?;
    let found = query.query_row((app.as_str(), name.as_str()), |row| {
        Ok((row.get(0)?, row.get(1)?))
    });
    Ok(found.optional()?)
}

pub fn set_seen(
    db: &Connection,
    app: &AppName,
    name: &ServiceName,
    seen: i64,
    schedule: &str,
) -> Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT OR REPLACE INTO crons (app, name, seen, schedule) VALUES (?1, ?2, ?3, ?4)",
    )?;
    upsert.execute((app.as_str(), name.as_str(), seen, schedule))?;
    Ok(())
}
