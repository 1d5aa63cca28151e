//! Anonymous volumes of instances that serve or served: kept for as long as the release is, since an app
//! may have stored data there that cannot be recreated.

use rusqlite::{Connection, Row};

use super::{Result, now, parsed};
use crate::ids::{AppName, ReleaseId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// The name that the engine gave it.
    pub name: String,
    pub app: AppName,
    pub release: ReleaseId,
    /// Where it is, or was, mounted in the container.
    pub path: String,
    /// The instance that uses it; `None` once its container is to be removed for good.
    pub instance: Option<String>,
}

/// Records a volume that an instance uses, or whose container is about to be removed.
pub fn insert(db: &Connection, volume: &Volume) -> Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT OR REPLACE INTO volumes (name, app, release, path, kept_since, instance)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    insert.execute((
        &volume.name,
        volume.app.as_str(),
        volume.release.as_str(),
        &volume.path,
        now(),
        &volume.instance,
    ))?;
    Ok(())
}

/// Records that an instance is about to be removed for good: its volumes are used by none any more.
pub fn leave(db: &Connection, instance: &str) -> Result<()> {
    let sql = "UPDATE volumes SET instance = NULL, kept_since = ?2 WHERE instance = ?1";
    db.prepare_cached(sql)?.execute((instance, now()))?;
    Ok(())
}

pub fn all(db: &Connection) -> Result<Vec<Volume>> {
    let mut query = db.prepare_cached("SELECT * FROM volumes ORDER BY kept_since, name")?;
    let rows = query.query_map([], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn of_release(db: &Connection, release: &ReleaseId) -> Result<Vec<Volume>> {
    let mut query =
        db.prepare_cached("SELECT * FROM volumes WHERE release = ?1 ORDER BY kept_since, name")?;
    let rows = query.query_map([release.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn of_app(db: &Connection, app: &AppName) -> Result<Vec<Volume>> {
    let mut query = db.prepare_cached("SELECT * FROM volumes WHERE app = ?1")?;
    let rows = query.query_map([app.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Deletes the row of a volume that is gone.
pub fn delete(db: &Connection, name: &str) -> Result<()> {
    db.execute("DELETE FROM volumes WHERE name = ?1", [name])?;
    Ok(())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Volume> {
    Ok(Volume {
        name: row.get("name")?,
        app: parsed(row, "app")?,
        release: parsed(row, "release")?,
        path: row.get("path")?,
        instance: row.get("instance")?,
    })
}
