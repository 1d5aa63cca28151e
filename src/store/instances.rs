//! Instances: a row is written before its container is made and deleted after the container is gone,
//! so a container that is neither in this table nor in `jobs` nor in `given_up` is not ours.
//!
//! An instance that nothing needs any more is retiring: it is stopped in the background, and no longer
//! counts as one of its release, even if that release goes live again.

use std::collections::HashSet;
use std::net::SocketAddr;

use rusqlite::{Connection, Row};

use super::ours::Ours;
use super::{Result, given_up, maybe_parsed, now, parsed};
use crate::ids::{AppName, DeploymentId, ReleaseId, ServiceName};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The container's name.
    pub name: String,
    pub app: AppName,
    pub release: ReleaseId,
    pub service: ServiceName,
    pub deployment: DeploymentId,
    /// The address at which it is reached. `None` until it has started, and if its service has no port.
    pub endpoint: Option<SocketAddr>,
    /// See [`Ours::mark`].
    pub mark: Option<String>,
    /// The id of the engine on which it was last seen; `None` until it has been seen.
    pub engine: Option<String>,
}

impl Instance {
    pub fn ours(&self) -> Ours {
        Ours {
            name: self.name.clone(),
            mark: self.mark.clone(),
        }
    }
}

/// Records an instance that is about to be made.
pub fn insert(db: &Connection, instance: &Instance) -> Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO instances (name, app, release, service, deployment, endpoint, mark, engine)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    insert.execute((
        &instance.name,
        instance.app.as_str(),
        instance.release.as_str(),
        instance.service.as_str(),
        instance.deployment.as_str(),
        instance.endpoint.map(|endpoint| endpoint.to_string()),
        &instance.mark,
        &instance.engine,
    ))?;
    Ok(())
}

/// Records the address of an instance that has started.
pub fn set_endpoint(db: &Connection, name: &str, endpoint: Option<SocketAddr>) -> Result<()> {
    let mut update = db.prepare_cached("UPDATE instances SET endpoint = ?2 WHERE name = ?1")?;
    update.execute((name, endpoint.map(|endpoint| endpoint.to_string())))?;
    Ok(())
}

/// Records the engine on which an instance was seen.
pub fn set_engine(db: &Connection, name: &str, engine: &str) -> Result<()> {
    let mut update = db.prepare_cached("UPDATE instances SET engine = ?2 WHERE name = ?1")?;
    update.execute((name, engine))?;
    Ok(())
}

/// Forgets an instance whose container is gone.
pub fn delete(db: &Connection, name: &str) -> Result<()> {
    given_up::insert(db, name)?;
    db.execute("DELETE FROM instances WHERE name = ?1", [name])?;
    Ok(())
}

/// Every instance, retiring or not.
pub fn all(db: &Connection) -> Result<Vec<Instance>> {
    let mut query = db.prepare_cached("SELECT * FROM instances ORDER BY name")?;
    let rows = query.query_map([], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The instances that a deployment made. Those of a release that it rolled back to may have been
/// made by another deployment.
pub fn of_deployment(db: &Connection, deployment: &DeploymentId) -> Result<Vec<Instance>> {
    let mut query =
        db.prepare_cached("SELECT * FROM instances WHERE deployment = ?1 ORDER BY name")?;
    let rows = query.query_map([deployment.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Every instance of an app, retiring or not.
pub fn of_app(db: &Connection, app: &AppName) -> Result<Vec<Instance>> {
    let mut query = db.prepare_cached("SELECT * FROM instances WHERE app = ?1 ORDER BY name")?;
    let rows = query.query_map([app.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The instances of a release that are not retiring.
pub fn of_release(db: &Connection, release: &ReleaseId) -> Result<Vec<Instance>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM instances WHERE release = ?1 AND retiring_since IS NULL ORDER BY name",
    )?;
    let rows = query.query_map([release.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The instances of a release's app that are none of it: those of other releases, and its own that are retiring.
pub fn beside(db: &Connection, app: &AppName, release: &ReleaseId) -> Result<Vec<Instance>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM instances WHERE app = ?1 AND (release <> ?2 OR retiring_since IS NOT NULL)
         ORDER BY name",
    )?;
    let rows = query.query_map((app.as_str(), release.as_str()), from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Records that an instance of a release that the app goes back to does not run: started again, it is
/// probed before it gets requests.
pub fn set_stopped(db: &Connection, name: &str) -> Result<()> {
    let sql = "UPDATE instances SET stopped = 1 WHERE name = ?1";
    db.prepare_cached(sql)?.execute([name])?;
    Ok(())
}

/// Records that the instances of a release get requests.
pub fn set_serving(db: &Connection, release: &ReleaseId) -> Result<()> {
    let sql = "UPDATE instances SET stopped = 0 WHERE release = ?1 AND stopped <> 0";
    db.prepare_cached(sql)?.execute([release.as_str()])?;
    Ok(())
}

/// The instances of a release that have run since they last got requests: neither retiring, nor found
/// stopped, nor started by the deployment `but`.
pub fn warm(
    db: &Connection,
    release: &ReleaseId,
    but: Option<&DeploymentId>,
) -> Result<Vec<Instance>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM instances WHERE release = ?1 AND retiring_since IS NULL AND NOT stopped
           AND deployment IS NOT ?2 ORDER BY name",
    )?;
    let but = but.map(DeploymentId::as_str);
    let rows = query.query_map((release.as_str(), but), from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Retires the instances of an app that belong to none of the releases `but`; returns how many.
pub fn retire(db: &Connection, app: &AppName, but: [Option<&ReleaseId>; 2]) -> Result<usize> {
    let [first, second] = but.map(|release| release.map(ReleaseId::as_str));
    let mut update = db.prepare_cached(
        "UPDATE instances SET retiring_since = ?2
         WHERE app = ?1 AND retiring_since IS NULL AND release IS NOT ?3 AND release IS NOT ?4",
    )?;
    Ok(update.execute((app.as_str(), now(), first, second))?)
}

/// Retires one instance.
pub fn retire_one(db: &Connection, name: &str) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE instances SET retiring_since = ?2 WHERE name = ?1 AND retiring_since IS NULL",
    )?;
    update.execute((name, now()))?;
    Ok(())
}

/// Retires the instances of an app's processes, which take no requests, that do not belong to the
/// release `but`; returns how many.
pub fn retire_processes(db: &Connection, app: &AppName, but: &ReleaseId) -> Result<usize> {
    let mut update = db.prepare_cached(
        "UPDATE instances SET retiring_since = ?2
         WHERE app = ?1 AND retiring_since IS NULL AND release <> ?3 AND EXISTS (
            SELECT 1 FROM services
            WHERE services.release = instances.release AND services.name = instances.service
              AND services.port IS NULL)",
    )?;
    Ok(update.execute((app.as_str(), now(), but.as_str()))?)
}

/// Records that the instances of a release are needed after all.
pub fn keep(db: &Connection, release: &ReleaseId) -> Result<()> {
    let sql = "UPDATE instances SET retiring_since = NULL WHERE release = ?1";
    db.prepare_cached(sql)?.execute([release.as_str()])?;
    Ok(())
}

/// The instances that are retiring, of every app; the oldest first.
pub fn retiring(db: &Connection) -> Result<Vec<Instance>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM instances WHERE retiring_since IS NOT NULL ORDER BY retiring_since, name",
    )?;
    let rows = query.query_map([], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The releases of an app that have an instance, retiring or not.
pub fn releases_of(db: &Connection, app: &AppName) -> Result<HashSet<ReleaseId>> {
    let all = of_app(db, app)?.into_iter();
    Ok(all.map(|instance| instance.release).collect())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Instance> {
    Ok(Instance {
        name: row.get("name")?,
        app: parsed(row, "app")?,
        release: parsed(row, "release")?,
        service: parsed(row, "service")?,
        deployment: parsed(row, "deployment")?,
        endpoint: maybe_parsed(row, "endpoint")?,
        mark: row.get("mark")?,
        engine: row.get("engine")?,
    })
}
