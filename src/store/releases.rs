//! Releases: never changed once written, but for when one went live and when its image was removed.

use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::{Result, json, now, parsed, to_json};
use crate::config::{Health, Protocol, Run};
use crate::ids::{AppName, CommitId, DeploymentId, ReleaseId};

/// What a release runs with, so that going back to it brings its settings back too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    pub port: u16,
    #[serde(default)]
    pub protocol: Protocol,
    pub run: Run,
    pub health: Health,
}

#[derive(Debug, Clone)]
pub struct Release {
    pub id: ReleaseId,
    pub app: AppName,
    /// The deployment that made it.
    pub deployment: DeploymentId,
    pub commit: CommitId,
    pub message: String,
    pub author: String,
    /// `cutover/<app>:<12 hex of the commit>`.
    pub image: String,
    /// `sha256:…`
    pub image_id: String,
    pub settings: Settings,
    pub created_at: i64,
    pub went_live: Option<i64>,
    /// When its image was removed; it cannot be gone back to after that.
    pub removed_at: Option<i64>,
}

pub fn insert(db: &Connection, release: &Release) -> Result<()> {
    db.execute(
        "INSERT INTO releases
            (id, app, deployment, commit_id, message, author, image, image_id, settings, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        (
            release.id.as_str(),
            release.app.as_str(),
            release.deployment.as_str(),
            release.commit.as_str(),
            &release.message,
            &release.author,
            &release.image,
            &release.image_id,
            to_json(&release.settings)?,
            release.created_at,
        ),
    )?;
    Ok(())
}

pub fn get(db: &Connection, id: &ReleaseId) -> Result<Option<Release>> {
    let mut query = db.prepare_cached("SELECT * FROM releases WHERE id = ?1")?;
    Ok(query.query_row([id.as_str()], from_row).optional()?)
}

pub fn set_went_live(db: &Connection, id: &ReleaseId) -> Result<()> {
    db.execute(
        "UPDATE releases SET went_live = ?2 WHERE id = ?1",
        (id.as_str(), now()),
    )?;
    Ok(())
}

pub fn set_removed(db: &Connection, id: &ReleaseId) -> Result<()> {
    db.execute(
        "UPDATE releases SET removed_at = ?2 WHERE id = ?1 AND removed_at IS NULL",
        (id.as_str(), now()),
    )?;
    Ok(())
}

/// Releases of an app whose image is still kept, the one that was live last first.
pub fn kept(db: &Connection, app: &AppName) -> Result<Vec<Release>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM releases WHERE app = ?1 AND removed_at IS NULL
         ORDER BY coalesce(went_live, 0) DESC, id DESC",
    )?;
    let rows = query.query_map([app.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A page of an app's releases, newest first, older than `before`.
pub fn list(
    db: &Connection,
    app: &AppName,
    before: Option<&str>,
    limit: usize,
) -> Result<Vec<Release>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM releases WHERE app = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3",
    )?;
    let rows = query.query_map(
        (app.as_str(), before.unwrap_or("~"), limit as i64),
        from_row,
    )?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Release> {
    Ok(Release {
        id: parsed(row, "id")?,
        app: parsed(row, "app")?,
        deployment: parsed(row, "deployment")?,
        commit: parsed(row, "commit_id")?,
        message: row.get("message")?,
        author: row.get("author")?,
        image: row.get("image")?,
        image_id: row.get("image_id")?,
        settings: json(row, "settings")?.ok_or(rusqlite::Error::InvalidQuery)?,
        created_at: row.get("created_at")?,
        went_live: row.get("went_live")?,
        removed_at: row.get("removed_at")?,
    })
}
