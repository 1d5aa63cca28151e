//! Which release of an app is live. The route table is derived from this and from the instances.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension};

use super::{Result, instances, json, maybe_parsed, now, parsed, to_json};
use crate::ids::{AgentId, AppName, DeploymentId, ReleaseId};
use crate::principal::Requester;

/// The release that serves an app.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Serving {
    pub live: Option<ReleaseId>,
    /// Rises with every switch of this app.
    pub generation: u64,
}

pub fn serving(db: &Connection, app: &AppName) -> Result<Serving> {
    let mut query =
        db.prepare_cached("SELECT live_release, route_generation FROM apps WHERE name = ?1")?;
    let found = query.query_row([app.as_str()], |row| {
        Ok(Serving {
            live: maybe_parsed(row, "live_release")?,
            generation: row.get::<_, i64>("route_generation")? as u64,
        })
    });
    Ok(found.optional()?.unwrap_or_default())
}

/// That a person stopped an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    pub at: i64,
    pub by: Option<Requester>,
}

/// Whether an app is stopped, and by whom.
pub fn stopped(db: &Connection, app: &AppName) -> Result<Option<Stopped>> {
    let mut query = db.prepare_cached(
        "SELECT stopped_at, stopped_by FROM apps WHERE name = ?1 AND stopped_at IS NOT NULL",
    )?;
    let found = query.query_row([app.as_str()], |row| {
        Ok(Stopped {
            at: row.get("stopped_at")?,
            by: json(row, "stopped_by")?,
        })
    });
    Ok(found.optional()?)
}

/// The names of all apps that are stopped.
pub fn all_stopped(db: &Connection) -> Result<HashSet<String>> {
    let mut query = db.prepare_cached("SELECT name FROM apps WHERE stopped_at IS NOT NULL")?;
    let rows = query.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn set_stopped(db: &Connection, app: &AppName, by: &Requester) -> Result<()> {
    db.execute(
        "INSERT INTO apps (name, stopped_at, stopped_by) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET stopped_at = ?2, stopped_by = ?3",
        (app.as_str(), now(), to_json(by)?),
    )?;
    Ok(())
}

/// Whether it was stopped.
pub fn set_started(db: &Connection, app: &AppName) -> Result<bool> {
    let sql = "UPDATE apps SET stopped_at = NULL, stopped_by = NULL
               WHERE name = ?1 AND stopped_at IS NOT NULL";
    Ok(db.execute(sql, [app.as_str()])? > 0)
}

/// The deployment for which the live release makes room, if one does.
pub fn vacated(db: &Connection, app: &AppName) -> Result<Option<DeploymentId>> {
    let mut query = db.prepare_cached("SELECT vacated_by FROM apps WHERE name = ?1")?;
    let found = query.query_row([app.as_str()], |row| maybe_parsed(row, "vacated_by"));
    Ok(found.optional()?.flatten())
}

/// Records that the live release makes room for a deployment, or with `None` that it serves again. Gives the
/// app's route a new generation.
pub fn set_vacated(db: &Connection, app: &AppName, by: Option<&DeploymentId>) -> Result<()> {
    let generation = next_generation(db, 0)?;
    db.execute(
        "UPDATE apps SET vacated_by = ?2, route_generation = ?3 WHERE name = ?1",
        (
            app.as_str(),
            by.map(DeploymentId::as_str),
            generation as i64,
        ),
    )?;
    Ok(())
}

/// The live release of each app that has one, except apps that are being removed, are stopped or make room
/// for a new release.
pub fn live_releases(db: &Connection) -> Result<Vec<ReleaseId>> {
    let mut query = db.prepare_cached(
        "SELECT live_release FROM apps
         WHERE live_release IS NOT NULL AND removing IS NULL AND stopped_at IS NULL
           AND vacated_by IS NULL",
    )?;
    let rows = query.query_map([], |row| parsed(row, "live_release"))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Makes `release` the live one. Gives the app's route a generation higher than every earlier one,
/// and returns it.
pub fn set_live(db: &Connection, app: &AppName, release: &ReleaseId) -> Result<u64> {
    let generation = next_generation(db, 0)?;
    db.execute(
        "INSERT INTO apps (name, live_release, route_generation) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE
         SET live_release = ?2, route_generation = ?3, vacated_by = NULL",
        (app.as_str(), release.as_str(), generation as i64),
    )?;
    instances::set_serving(db, release)?;
    Ok(generation)
}

/// The next generation for a route table: higher than every earlier one and than `at_least`.
pub fn next_generation(db: &Connection, at_least: u64) -> Result<u64> {
    let next = generation(db)?.max(at_least) + 1;
    db.execute(
        "INSERT INTO meta (key, value) VALUES ('generation', ?1)
         ON CONFLICT (key) DO UPDATE SET value = ?1",
        [next.to_string()],
    )?;
    Ok(next)
}

/// The newest generation of any route table; 0 before the first.
pub fn generation(db: &Connection) -> Result<u64> {
    let text: Option<String> = db
        .query_row("SELECT value FROM meta WHERE key = 'generation'", [], |r| {
            r.get(0)
        })
        .optional()?;
    Ok(text.and_then(|t| t.parse().ok()).unwrap_or(0))
}

/// The id of the agent that owns this data folder; created on first use.
pub fn agent_id(db: &Connection) -> Result<AgentId> {
    agent_id_or(db, None)
}

/// The same; a database that has none gets the id that an earlier one had, if that is known.
pub fn agent_id_or(db: &Connection, before: Option<AgentId>) -> Result<AgentId> {
    db.execute(
        "INSERT INTO meta (key, value) VALUES ('agent_id', ?1) ON CONFLICT (key) DO NOTHING",
        [before.unwrap_or_else(AgentId::new).as_str()],
    )?;
    let query = "SELECT value FROM meta WHERE key = 'agent_id'";
    Ok(db.query_row(query, [], |row| super::parsed(row, "value"))?)
}
