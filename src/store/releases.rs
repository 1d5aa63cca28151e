//! Releases: immutable, except for the times at which they went live and their images were removed, and for how many
//! instances they have when a rollback makes them live again.

use rusqlite::{Connection, OptionalExtension, Row};

use super::provenance::Provenance;
use super::services::{self, Service};
use super::{Result, former_secrets, json, now, parsed, to_json};
use crate::ids::{AppName, CommitId, DeploymentId, ReleaseId, ServiceName};

#[derive(Debug, Clone)]
pub struct Release {
    pub id: ReleaseId,
    pub app: AppName,
    /// The deployment that made it.
    pub deployment: DeploymentId,
    pub commit: CommitId,
    pub message: String,
    pub author: String,
    /// `None` if it was made before this was recorded, or adopted.
    pub provenance: Option<Provenance>,
    /// Ordered by name; at least one.
    pub services: Vec<Service>,
    pub created_at: i64,
    pub went_live: Option<i64>,
    /// When its images were removed; a rollback cannot go back to it after that.
    pub removed_at: Option<i64>,
}

impl Release {
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.iter().find(|service| service.name == *name)
    }

    /// Whether it runs the same images with the same settings; how many instances it has does not count.
    pub fn runs_like(&self, other: &Self) -> bool {
        let mut pairs = self.services.iter().zip(&other.services);
        self.services.len() == other.services.len() && pairs.all(|(one, two)| one.runs_like(two))
    }

    /// Whether it is of the same commit and the same images.
    pub fn has_images_of(&self, other: &Self) -> bool {
        let image = |service: &'_ Service| (service.name.clone(), service.image_id.clone());
        let (own, others) = (self.services.iter(), other.services.iter());
        self.commit == other.commit && own.map(image).eq(others.map(image))
    }

    /// The service that takes requests; an app may have none.
    pub fn web(&self) -> Option<&Service> {
        self.service(&ServiceName::web())
    }

    /// The service whose image is shown as the release's, and that commands run as.
    pub fn main(&self) -> Option<&Service> {
        self.web().or(self.services.first())
    }
}

pub fn insert(db: &Connection, release: &Release) -> Result<()> {
    db.execute(
        "INSERT INTO releases
            (id, app, deployment, commit_id, message, author, created_at, provenance)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        (
            release.id.as_str(),
            release.app.as_str(),
            release.deployment.as_str(),
            release.commit.as_str(),
            &release.message,
            &release.author,
            release.created_at,
            release.provenance.as_ref().map(to_json).transpose()?,
        ),
    )?;
    for service in &release.services {
        services::insert(db, &release.id, service)?;
    }
    Ok(())
}

pub fn get(db: &Connection, id: &ReleaseId) -> Result<Option<Release>> {
    let mut query = db.prepare_cached("SELECT * FROM releases WHERE id = ?1")?;
    let mut rows = query.query([id.as_str()])?;
    Ok(rows.next()?.map(|row| from_row(db, row)).transpose()?)
}

/// Where the image that a deployment built comes from.
pub fn provenance(db: &Connection, built_by: &DeploymentId) -> Result<Option<Provenance>> {
    let mut query = db.prepare_cached(
        "SELECT provenance FROM releases WHERE deployment = ?1 AND provenance IS NOT NULL LIMIT 1",
    )?;
    let mut rows = query.query([built_by.as_str()])?;
    let found = rows
        .next()?
        .map(|row| json(row, "provenance"))
        .transpose()?;
    Ok(found.flatten())
}

/// Records that a release goes live; before it is made the live one, so that what it replaces the first
/// time is known.
pub fn set_went_live(db: &Connection, id: &ReleaseId) -> Result<()> {
    db.execute(
        "UPDATE releases SET went_live = ?2, replaced = iif(went_live IS NULL,
            (SELECT live_release FROM apps WHERE name = releases.app), replaced)
         WHERE id = ?1",
        (id.as_str(), now()),
    )?;
    Ok(())
}

/// Records with how many instances a release goes live: a rollback keeps what `cutover scale` keeps. Not before the
/// switch: a rollback that is undone leaves the release as it was.
pub fn set_replicas(db: &Connection, release: &Release) -> Result<()> {
    services::set_replicas(db, &release.id, &release.services)
}

/// What was live before a release first went live. Of releases from before this was recorded, the one
/// made before it that went live.
pub fn before(db: &Connection, release: &Release) -> Result<Option<Release>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM releases WHERE id = (SELECT replaced FROM releases WHERE id = ?1)
         UNION ALL
         SELECT * FROM (SELECT * FROM releases
            WHERE app = ?2 AND id < ?1 AND went_live IS NOT NULL ORDER BY id DESC LIMIT 1)
         LIMIT 1",
    )?;
    let mut rows = query.query((release.id.as_str(), release.app.as_str()))?;
    Ok(rows.next()?.map(|row| from_row(db, row)).transpose()?)
}

/// The last release made before this one that went live.
pub fn live_before(db: &Connection, release: &Release) -> Result<Option<Release>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM releases
         WHERE app = ?1 AND id < ?2 AND went_live IS NOT NULL ORDER BY id DESC LIMIT 1",
    )?;
    let mut rows = query.query((release.app.as_str(), release.id.as_str()))?;
    Ok(rows.next()?.map(|row| from_row(db, row)).transpose()?)
}

/// The releases of an app, removed ones too, whose own id, commit or deployment begins with `text`, or
/// which a deployment went back to whose id does. The one that went live last comes first.
pub fn beginning_with(db: &Connection, app: &AppName, text: &str) -> Result<Vec<Release>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM releases WHERE app = ?1
           AND (substr(id, 1, ?3) = ?2 OR substr(commit_id, 1, ?3) = ?2
                OR substr(deployment, 1, ?3) = ?2
                OR id IN (SELECT release FROM deployments
                          WHERE app = ?1 AND substr(id, 1, ?3) = ?2))
         ORDER BY removed_at IS NULL DESC, coalesce(went_live, 0) DESC, id DESC",
    )?;
    let length = text.len() as i64;
    let rows = query.query_map((app.as_str(), text, length), |row| from_row(db, row))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Records since when an adopted release has been live.
pub fn set_live_since(db: &Connection, id: &ReleaseId, at: i64) -> Result<()> {
    let sql = "UPDATE releases SET went_live = ?2 WHERE id = ?1";
    db.execute(sql, (id.as_str(), at))?;
    Ok(())
}

/// Records that the images of a release are there after all.
pub fn set_kept(db: &Connection, id: &ReleaseId) -> Result<()> {
    let sql = "UPDATE releases SET removed_at = NULL WHERE id = ?1";
    db.execute(sql, [id.as_str()])?;
    Ok(())
}

pub fn set_removed(db: &Connection, id: &ReleaseId) -> Result<()> {
    db.execute(
        "UPDATE releases SET removed_at = ?2 WHERE id = ?1 AND removed_at IS NULL",
        (id.as_str(), now()),
    )?;
    let mut query = db.prepare_cached("SELECT app FROM releases WHERE id = ?1")?;
    let app = query.query_row([id.as_str()], |row| parsed(row, "app"));
    match app.optional()? {
        Some(app) => former_secrets::forget(db, &app),
        None => Ok(()),
    }
}

/// Whether a kept release of an app other than `app` uses this image.
pub fn is_shared(db: &Connection, image_id: &str, app: &AppName) -> Result<bool> {
    let mut query = db.prepare_cached(
        "SELECT 1 FROM services JOIN releases ON releases.id = services.release
         WHERE services.image_id = ?1 AND releases.app <> ?2 AND releases.removed_at IS NULL",
    )?;
    Ok(query.exists((image_id, app.as_str()))?)
}

/// The releases of an app whose images are still kept; the one that went live last comes first.
pub fn kept(db: &Connection, app: &AppName) -> Result<Vec<Release>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM releases WHERE app = ?1 AND removed_at IS NULL
         ORDER BY coalesce(went_live, 0) DESC, id DESC",
    )?;
    let rows = query.query_map([app.as_str()], |row| from_row(db, row))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A page of an app's releases, newest first, older than the release id `before`.
pub fn list(
    db: &Connection,
    app: &AppName,
    before: Option<&str>,
    limit: usize,
) -> Result<Vec<Release>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM releases WHERE app = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3",
    )?;
    let rows = query.query_map((app.as_str(), before.unwrap_or("~"), limit as i64), |row| {
        from_row(db, row)
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn from_row(db: &Connection, row: &Row<'_>) -> rusqlite::Result<Release> {
    let id: ReleaseId = parsed(row, "id")?;
    Ok(Release {
        services: services::of(db, &id)?,
        id,
        app: parsed(row, "app")?,
        deployment: parsed(row, "deployment")?,
        commit: parsed(row, "commit_id")?,
        message: row.get("message")?,
        author: row.get("author")?,
        provenance: json(row, "provenance")?,
        created_at: row.get("created_at")?,
        went_live: row.get("went_live")?,
        removed_at: row.get("removed_at")?,
    })
}
