//! Images that were built here, by cache key. Only images recorded here are reused: an image
//! that somebody built from one of ours inherits its labels.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;

use super::{Result, maybe_parsed, now};
use crate::ids::{AppName, DeploymentId};

/// An image that was built here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// `sha256:…`
    pub id: String,
    /// The deployment that built it; `None` if that was before it was recorded.
    pub deployment: Option<DeploymentId>,
}

impl Recorded {
    /// Who built it, in words.
    pub fn built(&self) -> String {
        match &self.deployment {
            Some(deployment) => format!("that `{deployment}` built"),
            None => "that an earlier deployment built".to_owned(),
        }
    }
}

/// Records the image that was last built from the content that `key` identifies.
pub fn insert(db: &Connection, app: &AppName, key: &str, image: &Recorded) -> Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO images (app, cache_key, id, built_at, deployment) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (app, cache_key) DO UPDATE SET id = ?3, built_at = ?4, deployment = ?5",
    )?;
    let deployment = image.deployment.as_ref().map(DeploymentId::as_str);
    insert.execute((app.as_str(), key, &image.id, now(), deployment))?;
    Ok(())
}

/// The image of each cache key of an app.
pub fn of_app(db: &Connection, app: &AppName) -> Result<HashMap<String, Recorded>> {
    let mut query =
        db.prepare_cached("SELECT cache_key, id, deployment FROM images WHERE app = ?1")?;
    let rows = query.query_map([app.as_str()], |row| {
        let image = Recorded {
            id: row.get("id")?,
            deployment: maybe_parsed(row, "deployment")?,
        };
        Ok((row.get("cache_key")?, image))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The ids of all images that a kept release has, or that are reused for the same content.
pub fn recorded(db: &Connection) -> Result<HashSet<String>> {
    let mut query = db.prepare_cached(
        "SELECT image_id FROM services JOIN releases ON releases.id = services.release
         WHERE releases.removed_at IS NULL
         UNION SELECT id FROM images",
    )?;
    let rows = query.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Deletes the rows of an image that was removed.
pub fn delete(db: &Connection, id: &str) -> Result<()> {
    db.execute("DELETE FROM images WHERE id = ?1", [id])?;
    Ok(())
}
