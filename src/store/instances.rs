//! Instances: a row is written before its container is created and deleted after the container is
//! gone, so every container of ours either has a row or is an orphan. The unique address keeps two
//! containers from being given the same one.

use std::net::Ipv4Addr;

use rusqlite::{Connection, Row};

use super::{Result, StoreError, parsed};
use crate::ids::{AppName, DeploymentId, ReleaseId, ServiceName};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The container's name.
    pub name: String,
    pub app: AppName,
    pub release: ReleaseId,
    pub service: ServiceName,
    pub deployment: DeploymentId,
    pub address: Ipv4Addr,
}

/// Records an instance that is about to be created, with the first address of `free` that is not
/// taken.
pub fn insert(
    db: &Connection,
    name: String,
    app: &AppName,
    release: &ReleaseId,
    service: &ServiceName,
    deployment: &DeploymentId,
    mut free: impl Iterator<Item = Ipv4Addr>,
) -> Result<Instance> {
    let taken: std::collections::HashSet<Ipv4Addr> = all(db)?
        .into_iter()
        .map(|instance| instance.address)
        .collect();
    let address = free
        .find(|address| !taken.contains(address))
        .ok_or_else(|| {
            StoreError::Refused("no address is left in Cutover's network; retire some apps".into())
        })?;
    db.execute(
        "INSERT INTO instances (name, app, release, service, deployment, address)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (
            &name,
            app.as_str(),
            release.as_str(),
            service.as_str(),
            deployment.as_str(),
            address.to_string(),
        ),
    )?;
    Ok(Instance {
        name,
        app: app.clone(),
        release: release.clone(),
        service: service.clone(),
        deployment: deployment.clone(),
        address,
    })
}

pub fn delete(db: &Connection, name: &str) -> Result<()> {
    db.execute("DELETE FROM instances WHERE name = ?1", [name])?;
    Ok(())
}

pub fn all(db: &Connection) -> Result<Vec<Instance>> {
    let mut query = db.prepare_cached("SELECT * FROM instances ORDER BY name")?;
    let rows = query.query_map([], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn of_app(db: &Connection, app: &AppName) -> Result<Vec<Instance>> {
    let mut query = db.prepare_cached("SELECT * FROM instances WHERE app = ?1 ORDER BY name")?;
    let rows = query.query_map([app.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn of_release(db: &Connection, release: &ReleaseId) -> Result<Vec<Instance>> {
    let mut query =
        db.prepare_cached("SELECT * FROM instances WHERE release = ?1 ORDER BY name")?;
    let rows = query.query_map([release.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Instance> {
    Ok(Instance {
        name: row.get("name")?,
        app: parsed(row, "app")?,
        release: parsed(row, "release")?,
        service: parsed(row, "service")?,
        deployment: parsed(row, "deployment")?,
        address: parsed(row, "address")?,
    })
}
