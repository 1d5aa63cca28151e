//! The values that secrets had before, encrypted, for as long as a kept release started with them. Which
//! versions a release started with stands in its row.

use rusqlite::Connection;

use super::Result;
use crate::ids::{AppName, ReleaseId};

/// A value that a secret had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    pub name: String,
    pub version: u32,
    /// The encrypted value.
    pub sealed: Vec<u8>,
}

/// Whether a kept release of the app `?1` started with the version of `t`, a row of secrets.
const IN_USE: &str = "EXISTS (SELECT 1 FROM releases r, json_each(r.secrets) started
    WHERE r.app = ?1 AND r.removed_at IS NULL AND started.key = t.name AND started.value = t.version)";

/// Records which versions a release starts with: those of now.
pub fn record(db: &Connection, release: &ReleaseId) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE releases SET secrets = (SELECT json_group_object(name, version) FROM secrets
            WHERE secrets.app = releases.app) WHERE id = ?1",
    )?;
    update.execute([release.as_str()])?;
    Ok(())
}

/// The versions that a release started with, by name, as JSON; `None` if that was not recorded.
pub fn versions(db: &Connection, release: &ReleaseId) -> Result<Option<String>> {
    let mut query = db.prepare_cached("SELECT secrets FROM releases WHERE id = ?1")?;
    Ok(query.query_row([release.as_str()], |row| row.get(0))?)
}

/// Keeps the value of a secret that is about to get another or none, if a release may need it.
pub fn keep(db: &Connection, app: &AppName, name: &str) -> Result<()> {
    let mut insert = db.prepare_cached(&format!(
        "INSERT OR REPLACE INTO former_secrets (app, name, version, sealed)
         SELECT app, name, version, sealed FROM secrets t
         WHERE app = ?1 AND name = ?2 AND {IN_USE}"
    ))?;
    insert.execute((app.as_str(), name))?;
    Ok(())
}

/// The version of a secret's next value: above all that are known, so that no two values share one.
pub fn next_version(db: &Connection, app: &AppName, name: &str) -> Result<u32> {
    let mut query = db.prepare_cached(
        "SELECT 1 + coalesce(max(version), 0) FROM (
            SELECT version FROM secrets WHERE app = ?1 AND name = ?2
            UNION ALL SELECT version FROM former_secrets WHERE app = ?1 AND name = ?2
            UNION ALL SELECT started.value FROM releases r, json_each(r.secrets) started
                WHERE r.app = ?1 AND started.key = ?2)",
    )?;
    Ok(query.query_row((app.as_str(), name), |row| row.get(0))?)
}

/// Deletes the values that no kept release of the app started with; after one is no longer kept.
pub fn forget(db: &Connection, app: &AppName) -> Result<()> {
    let mut delete = db.prepare_cached(&format!(
        "DELETE FROM former_secrets AS t WHERE app = ?1 AND NOT {IN_USE}"
    ))?;
    delete.execute([app.as_str()])?;
    Ok(())
}

/// The former values of an app's secrets.
pub fn of_app(db: &Connection, app: &AppName) -> Result<Vec<Former>> {
    let mut query = db.prepare_cached(
        "SELECT name, version, sealed FROM former_secrets WHERE app = ?1 ORDER BY name, version",
    )?;
    let rows = query.query_map([app.as_str()], |row| {
        Ok(Former {
            name: row.get("name")?,
            version: row.get("version")?,
            sealed: row.get("sealed")?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Replaces the encrypted form of a value that stays the same.
pub fn reseal(db: &Connection, app: &AppName, former: &Former, sealed: &[u8]) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE former_secrets SET sealed = ?4 WHERE app = ?1 AND name = ?2 AND version = ?3",
    )?;
    update.execute((app.as_str(), &former.name, former.version, sealed))?;
    Ok(())
}

/// Deletes one that is the secret's value again.
pub fn delete(db: &Connection, app: &AppName, name: &str, version: u32) -> Result<()> {
    let sql = "DELETE FROM former_secrets WHERE app = ?1 AND name = ?2 AND version = ?3";
    db.prepare_cached(sql)?
        .execute((app.as_str(), name, version))?;
    Ok(())
}
