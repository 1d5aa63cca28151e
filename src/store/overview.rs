//! All apps at once: a few statements that answer for all of them, rather than a dozen for each.

use std::collections::HashMap;

use rusqlite::{Connection, Row};

use super::{Result, parsed};
use crate::ids::{AppName, DeploymentId};
use crate::state::State;

/// How an app serves, and how its last deployments went.
#[derive(Debug, Default)]
pub struct Overview {
    pub live: Option<Live>,
    pub is_stopped: bool,
    pub is_pinned: bool,
    pub in_maintenance: bool,
    pub is_being_removed: bool,
    /// Those of the live release: `web` and other services with a port first, then by name.
    pub services: Vec<Service>,
    /// The deployment that is under way, other than a waiting one.
    pub running: Option<Brief>,
    /// Newest first.
    pub last: Vec<Brief>,
}

/// The live release.
#[derive(Debug)]
pub struct Live {
    pub commit: String,
    pub message: String,
    pub author: String,
    pub since: Option<i64>,
}

#[derive(Debug)]
pub struct Service {
    pub name: String,
    pub replicas: u32,
    /// The names of those that are recorded and not retiring.
    pub instances: Vec<String>,
}

/// What a list says of a deployment.
#[derive(Debug)]
pub struct Brief {
    pub id: DeploymentId,
    pub state: State,
    pub message: Option<String>,
    pub created_at: i64,
    pub ended_at: Option<i64>,
}

/// Every app that the database knows, with its last `count` deployments. Columns are read by their number:
/// looking them up by name takes longer than SQLite does.
pub fn all(db: &Connection, names: &[AppName], count: usize) -> Result<Vec<Overview>> {
    let (mut known, mut services, mut running) = (known(db)?, services(db)?, running(db)?);
    let mut last = db.prepare_cached(
        "SELECT id, state, message, created_at, ended_at FROM deployments
         WHERE app = ?1 ORDER BY id DESC LIMIT ?2",
    )?;
    let overview = |name: &AppName| {
        let key = name.as_str();
        let rows = last.query_map((key, count as i64), |row| brief(row, 0))?;
        Ok(Overview {
            services: services.remove(key).unwrap_or_default(),
            running: running.remove(key),
            last: rows.collect::<rusqlite::Result<_>>()?,
            ..known.remove(key).unwrap_or_default()
        })
    };
    names.iter().map(overview).collect()
}

/// Of each app, what is live, and what a person has put on it.
fn known(db: &Connection) -> Result<HashMap<String, Overview>> {
    let mut query = db.prepare_cached(
        "SELECT name, stopped_at IS NOT NULL, releases.id IS NOT NULL, commit_id, message, author, went_live,
             pinned IS NOT NULL, maintenance IS NOT NULL, removing IS NOT NULL
         FROM apps LEFT JOIN releases ON releases.id = apps.live_release",
    )?;
    let rows = query.query_map([], |row| {
        let live = match row.get(2)? {
            true => Some(Live {
                commit: row.get(3)?,
                message: row.get(4)?,
                author: row.get(5)?,
                since: row.get(6)?,
            }),
            false => None,
        };
        let known = Overview {
            live,
            is_stopped: row.get(1)?,
            is_pinned: row.get(7)?,
            in_maintenance: row.get(8)?,
            is_being_removed: row.get(9)?,
            ..Overview::default()
        };
        Ok((row.get(0)?, known))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The services of the live releases, and their instances.
fn services(db: &Connection) -> Result<HashMap<String, Vec<Service>>> {
    let mut instances: HashMap<(String, String), Vec<String>> = HashMap::new();
    let mut query = db.prepare_cached(
        "SELECT apps.name, service, instances.name
         FROM instances JOIN apps ON apps.live_release = instances.release
         WHERE retiring_since IS NULL",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let its = instances.entry((row.get(0)?, row.get(1)?)).or_default();
        its.push(row.get(2)?);
    }
    let mut all: HashMap<String, Vec<Service>> = HashMap::new();
    let mut query = db.prepare_cached(
        "SELECT apps.name, services.name, replicas
         FROM apps JOIN services ON services.release = apps.live_release
         ORDER BY apps.name, port IS NULL, services.name",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (app, name): (String, String) = (row.get(0)?, row.get(1)?);
        let its = instances.remove(&(app.clone(), name.clone()));
        all.entry(app).or_default().push(Service {
            name,
            replicas: row.get(2)?,
            instances: its.unwrap_or_default(),
        });
    }
    Ok(all)
}

fn running(db: &Connection) -> Result<HashMap<String, Brief>> {
    let mut query = db.prepare_cached(
        "SELECT app, id, state, message, created_at, ended_at
         FROM deployments INDEXED BY deployments_open
         WHERE ended_at IS NULL AND state != 'queued' ORDER BY id",
    )?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, brief(row, 1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// From the column with the number `at`.
fn brief(row: &Row<'_>, at: usize) -> rusqlite::Result<Brief> {
    Ok(Brief {
        id: parsed(row, at)?,
        state: parsed(row, at + 1)?,
        message: row.get(at + 2)?,
        created_at: row.get(at + 3)?,
        ended_at: row.get(at + 4)?,
    })
}
