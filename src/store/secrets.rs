//! Secrets that Cutover keeps for apps, encrypted before they get here; see `deploy::vault`.

use rusqlite::{Connection, Row};

use super::{Result, former_secrets, json, now, parsed, to_json};
use crate::ids::AppName;
use crate::principal::Requester;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    pub name: String,
    /// Numbers the values that it has had, from 1.
    pub version: u32,
    /// The encrypted value.
    pub sealed: Vec<u8>,
    pub set_at: i64,
    pub set_by: Option<Requester>,
}

/// Stores a value in place of the one before.
pub fn set(
    db: &Connection,
    app: &AppName,
    name: &str,
    sealed: &[u8],
    by: &Requester,
) -> Result<()> {
    let version = former_secrets::next_version(db, app, name)?;
    put(db, app, name, version, sealed, by)
}

/// Stores a value as this version, which belongs to no other value.
pub(super) fn put(
    db: &Connection,
    app: &AppName,
    name: &str,
    version: u32,
    sealed: &[u8],
    by: &Requester,
) -> Result<()> {
    former_secrets::keep(db, app, name)?;
    let mut upsert = db.prepare_cached(
        "INSERT INTO secrets (app, name, version, sealed, set_at, set_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (app, name) DO UPDATE
         SET version = ?3, sealed = ?4, set_at = ?5, set_by = ?6",
    )?;
    upsert.execute((app.as_str(), name, version, sealed, now(), to_json(by)?))?;
    Ok(())
}

/// Replaces the encrypted form of a value that stays the same.
pub fn reseal(db: &Connection, app: &AppName, name: &str, sealed: &[u8]) -> Result<()> {
    let mut update =
        db.prepare_cached("UPDATE secrets SET sealed = ?3 WHERE app = ?1 AND name = ?2")?;
    update.execute((app.as_str(), name, sealed))?;
    Ok(())
}

/// Whether there was one.
pub fn unset(db: &Connection, app: &AppName, name: &str) -> Result<bool> {
    former_secrets::keep(db, app, name)?;
    let mut delete = db.prepare_cached("DELETE FROM secrets WHERE app = ?1 AND name = ?2")?;
    Ok(delete.execute((app.as_str(), name))? > 0)
}

pub fn unset_all(db: &Connection, app: &AppName) -> Result<()> {
    db.execute("DELETE FROM secrets WHERE app = ?1", [app.as_str()])?;
    let former = "DELETE FROM former_secrets WHERE app = ?1";
    db.execute(former, [app.as_str()])?;
    Ok(())
}

/// The secrets of an app, by name.
pub fn of_app(db: &Connection, app: &AppName) -> Result<Vec<Secret>> {
    let mut query = db.prepare_cached("SELECT * FROM secrets WHERE app = ?1 ORDER BY name")?;
    let rows = query.query_map([app.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The apps that have one, or had one whose value is kept.
pub fn apps(db: &Connection) -> Result<Vec<AppName>> {
    let mut query = db.prepare_cached(
        "SELECT app FROM secrets UNION SELECT app FROM former_secrets ORDER BY app",
    )?;
    let rows = query.query_map([], |row| parsed(row, "app"))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Whether any app has one, or had one whose value is kept.
pub fn any(db: &Connection) -> Result<bool> {
    let sql = "SELECT 1 FROM secrets UNION ALL SELECT 1 FROM former_secrets";
    Ok(db.prepare_cached(sql)?.exists([])?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Secret> {
    Ok(Secret {
        name: row.get("name")?,
        version: row.get("version")?,
        sealed: row.get("sealed")?,
        set_at: row.get("set_at")?,
        set_by: json(row, "set_by")?,
    })
}
