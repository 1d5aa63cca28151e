//! How many instances a person asked for, in place of what deploy.toml says.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use super::{Result, parsed};
use crate::ids::{AppName, ServiceName};

pub fn get(db: &Connection, app: &AppName, service: &ServiceName) -> Result<Option<u32>> {
    let mut query =
        db.prepare_cached("SELECT replicas FROM scales WHERE app = ?1 AND service = ?2")?;
    let found = query.query_row((app.as_str(), service.as_str()), |row| row.get(0));
    Ok(found.optional()?)
}

/// What was asked for, by service.
pub fn of_app(db: &Connection, app: &AppName) -> Result<BTreeMap<ServiceName, u32>> {
    let mut query = db.prepare_cached("SELECT service, replicas FROM scales WHERE app = ?1")?;
    let rows = query.query_map([app.as_str()], |row| {
        Ok((parsed(row, "service")?, row.get("replicas")?))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// With `None`, deploy.toml counts again.
pub fn set(
    db: &Connection,
    app: &AppName,
    service: &ServiceName,
    replicas: Option<u32>,
) -> Result<()> {
    match replicas {
        Some(replicas) => db.execute(
            "INSERT OR REPLACE INTO scales (app, service, replicas) VALUES (?1, ?2, ?3)",
            (app.as_str(), service.as_str(), replicas),
        )?,
        None => db.execute(
            "DELETE FROM scales WHERE app = ?1 AND service = ?2",
            (app.as_str(), service.as_str()),
        )?,
    };
    Ok(())
}
