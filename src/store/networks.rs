//! The networks of apps that have links to others: a client that comes from one is that app.

use ipnet::Ipv4Net;
use rusqlite::{Connection, OptionalExtension};

use super::{Result, parsed};
use crate::ids::AppName;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// As the engine knows it.
    pub name: String,
    pub app: AppName,
    pub subnet: Ipv4Net,
}

/// Returns whether it was not known like this.
pub fn record(db: &Connection, network: &Network) -> Result<bool> {
    let mut query = db.prepare_cached("SELECT app, subnet FROM networks WHERE name = ?1")?;
    let known: Option<(AppName, Ipv4Net)> = query
        .query_row([&network.name], |row| {
            Ok((parsed(row, "app")?, parsed(row, "subnet")?))
        })
        .optional()?;
    if known == Some((network.app.clone(), network.subnet)) {
        return Ok(false);
    }
    let mut insert = db.prepare_cached(
        "INSERT OR REPLACE INTO networks (name, app, subnet) VALUES (?1, ?2, ?3)",
    )?;
    insert.execute((
        &network.name,
        network.app.as_str(),
        network.subnet.to_string(),
    ))?;
    Ok(true)
}

pub fn all(db: &Connection) -> Result<Vec<Network>> {
    let mut query = db.prepare_cached("SELECT * FROM networks ORDER BY name")?;
    let rows = query.query_map([], |row| {
        Ok(Network {
            name: row.get("name")?,
            app: parsed(row, "app")?,
            subnet: parsed(row, "subnet")?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Forgets those that are not among `left`; returns how many.
pub fn keep_only(db: &Connection, left: &[String]) -> Result<usize> {
    let mut gone = 0;
    for network in all(db)? {
        if !left.contains(&network.name) {
            gone += db.execute("DELETE FROM networks WHERE name = ?1", [&network.name])?;
        }
    }
    Ok(gone)
}
