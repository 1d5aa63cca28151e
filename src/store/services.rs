//! The services of releases: what each process type of a release runs, and how.

use rusqlite::{Connection, Row};

use super::settings::{self, Settings};
use super::{Result, StoreError, parsed};
use crate::config::Protocol;
use crate::ids::{ReleaseId, ServiceName};

/// One process type of a release.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub name: ServiceName,
    /// The image's name: `cutover/<app>:<12 hex digits of the commit>` if it was built here.
    pub image: String,
    /// `sha256:…`. Containers are made from this id, since the name may later refer to another image.
    pub image_id: String,
    /// The image in a registry, `name:tag@sha256:…`: what it was made from, or where it was pushed to.
    pub image_digest: Option<String>,
    pub settings: Settings,
    /// How many instances it has.
    pub replicas: u32,
    /// The port that it listens on; `None` if it takes no requests.
    pub port: Option<u16>,
    pub protocol: Protocol,
}

impl Service {
    /// Whether it runs the same image with the same settings; the image's name and how many instances it has do not
    /// count.
    pub fn runs_like(&self, other: &Self) -> bool {
        let named = Self {
            image: other.image.clone(),
            image_digest: other.image_digest.clone(),
            replicas: other.replicas,
            ..self.clone()
        };
        named == *other
    }
}

/// Records how many instances each service of a release has.
pub(super) fn set_replicas(
    db: &Connection,
    release: &ReleaseId,
    services: &[Service],
) -> Result<()> {
    let mut update =
        db.prepare_cached("UPDATE services SET replicas = ?3 WHERE release = ?1 AND name = ?2")?;
    for service in services {
        update.execute((release.as_str(), service.name.as_str(), service.replicas))?;
    }
    Ok(())
}

pub(super) fn insert(db: &Connection, release: &ReleaseId, service: &Service) -> Result<()> {
    let settings = settings::to_json(&service.settings);
    let settings = settings.map_err(|error| StoreError::Refused(error.to_string()))?;
    let mut insert = db.prepare_cached(
        "INSERT INTO services
            (release, name, image, image_id, image_digest, settings, replicas, port, protocol)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    insert.execute((
        release.as_str(),
        service.name.as_str(),
        &service.image,
        &service.image_id,
        &service.image_digest,
        settings,
        service.replicas,
        service.port,
        protocol_name(service.protocol),
    ))?;
    Ok(())
}

/// The services of a release, ordered by name.
pub(super) fn of(db: &Connection, release: &ReleaseId) -> rusqlite::Result<Vec<Service>> {
    let mut query = db.prepare_cached("SELECT * FROM services WHERE release = ?1 ORDER BY name")?;
    let rows = query.query_map([release.as_str()], from_row)?;
    rows.collect()
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Service> {
    let text: String = row.get("settings")?;
    let unreadable = |error: String| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    };
    let protocol: String = row.get("protocol")?;
    Ok(Service {
        name: parsed(row, "name")?,
        image: row.get("image")?,
        image_id: row.get("image_id")?,
        image_digest: row.get("image_digest")?,
        settings: settings::from_json(&text).map_err(unreadable)?,
        replicas: row.get("replicas")?,
        port: row.get("port")?,
        protocol: protocol_named(&protocol)
            .ok_or_else(|| unreadable(format!("`{protocol}` is not a protocol")))?,
    })
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "http1",
        Protocol::H2c => "h2c",
    }
}

fn protocol_named(name: &str) -> Option<Protocol> {
    let all = [Protocol::Http1, Protocol::H2c];
    all.into_iter().find(|it| protocol_name(*it) == name)
}
