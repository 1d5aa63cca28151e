//! Which deployments there are.

use rusqlite::{Connection, OptionalExtension, Row};

use super::{Deployment, Goal, Trigger};
use crate::ids::{AppName, DeploymentId, ReleaseId};
use crate::state::State;
use crate::store::{Result, json, maybe_parsed, parsed, to_json};

pub fn get(db: &Connection, id: &DeploymentId) -> Result<Option<Deployment>> {
    let mut query = db.prepare_cached("SELECT * FROM deployments WHERE id = ?1")?;
    Ok(query.query_row([id.as_str()], from_row).optional()?)
}

/// Whether a deployment of a commit whose id begins with these digits has ended, and none is open.
pub fn has_ended_with(db: &Connection, digits: &str) -> Result<bool> {
    let mut query = db.prepare_cached(
        "SELECT count(*) > 0 AND count(*) = count(ended_at) FROM deployments
         WHERE commit_id >= ?1 AND commit_id < ?1 || 'g'",
    )?;
    Ok(query.query_row([digits], |row| row.get(0))?)
}

/// The deployment of an app that runs next: an automatic rollback, else the live release again (in the order in
/// which that was asked for: what goes live next must not be replaced by what was live before), else the
/// newest in the queue.
pub fn next_in_queue(db: &Connection, app: &AppName) -> Result<Option<Deployment>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM deployments INDEXED BY deployments_open
         WHERE app = ?1 AND ended_at IS NULL AND state = 'queued'
         ORDER BY trigger = ?2 DESC, want = ?3 DESC, iif(want = ?3, id, NULL), id DESC LIMIT 1",
    )?;
    let (automatic, again) = (to_json(&Trigger::AutoRollback)?, to_json(&Goal::Again)?);
    let found = query.query_row((app.as_str(), automatic, again), from_row);
    Ok(found.optional()?)
}

/// The deployment for whose sake another one is ended early: the next one whose commit has been found.
pub fn next_waiting(db: &Connection, app: &AppName) -> Result<Option<Deployment>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM deployments INDEXED BY deployments_open
         WHERE app = ?1 AND ended_at IS NULL AND state = 'queued' AND found
         ORDER BY trigger = ?2 DESC, id DESC LIMIT 1",
    )?;
    let automatic = to_json(&Trigger::AutoRollback)?;
    let found = query.query_row((app.as_str(), automatic), from_row);
    Ok(found.optional()?)
}

/// The newest waiting deployment whose commit has not been found yet, other than the one whose turn it is.
pub fn newest_unfound(
    db: &Connection,
    app: &AppName,
    turn: Option<&DeploymentId>,
) -> Result<Option<Deployment>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM deployments INDEXED BY deployments_open
         WHERE app = ?1 AND ended_at IS NULL AND state = 'queued' AND NOT found AND want != ?3
           AND id IS NOT ?2
         ORDER BY id DESC LIMIT 1",
    )?;
    let turn = turn.map(DeploymentId::as_str);
    // It has no commit to be found.
    let again = to_json(&Goal::Again)?;
    let found = query.query_row((app.as_str(), turn, again), from_row);
    Ok(found.optional()?)
}

/// The waiting deployment that starts the live release again.
pub fn waiting_again(db: &Connection, app: &AppName) -> Result<Option<Deployment>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM deployments INDEXED BY deployments_open
         WHERE app = ?1 AND ended_at IS NULL AND state = 'queued' AND want = ?2
         ORDER BY id DESC LIMIT 1",
    )?;
    let again = to_json(&Goal::Again)?;
    Ok(query
        .query_row((app.as_str(), again), from_row)
        .optional()?)
}

/// The waiting deployments that a newer one may supersede, oldest first.
pub(super) fn waiting(db: &Connection, app: &AppName) -> Result<Vec<Deployment>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM deployments INDEXED BY deployments_open
         WHERE app = ?1 AND ended_at IS NULL AND state = 'queued' AND trigger != ?2 AND want != ?3
         ORDER BY id",
    )?;
    let (automatic, again) = (to_json(&Trigger::AutoRollback)?, to_json(&Goal::Again)?);
    let rows = query.query_map((app.as_str(), automatic, again), from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The running deployment of an app, if a push requested it.
pub fn running_push(db: &Connection, app: &AppName) -> Result<Option<Deployment>> {
    // Name the index of open deployments, as in `next_waiting`: otherwise, to avoid sorting, SQLite
    // would scan every deployment of the app on each delivery.
    let mut query = db.prepare_cached(
        "SELECT * FROM deployments INDEXED BY deployments_open
         WHERE app = ?1 AND ended_at IS NULL AND state != 'queued'
           AND trigger IN (?2, ?3) ORDER BY id DESC LIMIT 1",
    )?;
    let (webhook, push) = (to_json(&Trigger::Webhook)?, to_json(&Trigger::Push)?);
    let found = query.query_row((app.as_str(), webhook, push), from_row);
    Ok(found.optional()?)
}

/// The deployment of an app that is under way.
pub fn running(db: &Connection, app: &AppName) -> Result<Option<Deployment>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM deployments INDEXED BY deployments_open
         WHERE app = ?1 AND ended_at IS NULL AND state != 'queued' ORDER BY id DESC LIMIT 1",
    )?;
    let found = query.query_row([app.as_str()], from_row);
    Ok(found.optional()?)
}

/// Every deployment that is not in a rest state, oldest first.
pub fn open(db: &Connection) -> Result<Vec<Deployment>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM deployments INDEXED BY deployments_open
         WHERE ended_at IS NULL ORDER BY id",
    )?;
    let rows = query.query_map([], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The same, of one app.
pub fn open_of(db: &Connection, app: &AppName) -> Result<Vec<Deployment>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM deployments INDEXED BY deployments_open
         WHERE app = ?1 AND ended_at IS NULL ORDER BY id",
    )?;
    let rows = query.query_map([app.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A page of an app's deployments, newest first, older than the deployment id `before`.
pub fn list(
    db: &Connection,
    app: &AppName,
    before: Option<&str>,
    limit: usize,
) -> Result<Vec<Deployment>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM deployments WHERE app = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3",
    )?;
    let rows = query.query_map(
        (app.as_str(), before.unwrap_or("~"), limit as i64),
        from_row,
    )?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Which deployments of a list are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub state: Option<State>,
    pub trigger: Option<Trigger>,
    /// Created then or later, in milliseconds since 1970.
    pub since: Option<i64>,
}

/// The same of those that the filter admits.
pub fn filtered(
    db: &Connection,
    app: &AppName,
    filter: &Filter,
    before: Option<&str>,
    limit: usize,
) -> Result<Vec<Deployment>> {
    let Filter {
        state,
        trigger,
        since,
    } = filter;
    // Two statements, so that each is answered by an index.
    let sql = match state {
        Some(_) => {
            "SELECT * FROM deployments INDEXED BY deployments_by_state
             WHERE app = ?1 AND state = ?4 AND id < ?2 AND id >= ?6
               AND (?5 IS NULL OR trigger = ?5) ORDER BY id DESC LIMIT ?3"
        }
        None => {
            "SELECT * FROM deployments WHERE app = ?1 AND id < ?2 AND id >= ?6
               AND (?4 IS NULL OR state = ?4) AND (?5 IS NULL OR trigger = ?5)
             ORDER BY id DESC LIMIT ?3"
        }
    };
    let since = since.map_or_else(String::new, |since| crate::ids::first_of('d', since));
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map(
        (
            app.as_str(),
            before.unwrap_or("~"),
            limit as i64,
            state.map(State::as_str),
            trigger.as_ref().map(to_json).transpose()?,
            since,
        ),
        from_row,
    )?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The newest deployment that switched to the release and was not rolled back.
pub fn last_of_release(db: &Connection, release: &ReleaseId) -> Result<Option<DeploymentId>> {
    let mut query = db.prepare_cached(
        "SELECT id FROM deployments INDEXED BY deployments_by_release
         WHERE release = ?1
           AND (state IN ('switching', 'draining', 'baking', 'live')
                -- In its bake, with nothing to go back to.
                OR (state = 'failed' AND EXISTS
                    (SELECT 1 FROM steps WHERE deployment = deployments.id AND name = 'switch')))
         ORDER BY id DESC LIMIT 1",
    )?;
    Ok(query
        .query_row([release.as_str()], |row| parsed(row, "id"))
        .optional()?)
}

/// Whether the release failed during its bake, so that it was rolled back if there was a release to go
/// back to.
pub fn was_rolled_back(db: &Connection, release: &ReleaseId) -> Result<bool> {
    let mut query = db.prepare_cached(
        "SELECT 1 FROM deployments INDEXED BY deployments_by_release
         WHERE release = ?1
           AND (state = 'rolled_back'
                OR (state = 'failed' AND EXISTS
                    (SELECT 1 FROM steps WHERE deployment = deployments.id AND name = 'switch')))
         LIMIT 1",
    )?;
    Ok(query.exists([release.as_str()])?)
}

/// How many deployments of each app are in each state, as (app, state, count).
pub fn counts(db: &Connection) -> Result<Vec<(String, String, u64)>> {
    let mut query =
        db.prepare_cached("SELECT app, state, count(*) FROM deployments GROUP BY app, state")?;
    let rows = query.query_map([], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)? as u64))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Deployment> {
    let missing = || rusqlite::Error::InvalidQuery;
    Ok(Deployment {
        id: parsed(row, "id")?,
        app: parsed(row, "app")?,
        trigger: json(row, "trigger")?.ok_or_else(missing)?,
        goal: json(row, "want")?.ok_or_else(missing)?,
        git_ref: row.get("ref")?,
        commit: maybe_parsed(row, "commit_id")?,
        message: row.get("message")?,
        author: row.get("author")?,
        no_cache: row.get("no_cache")?,
        pull: row.get("pull")?,
        state: parsed(row, "state")?,
        release: maybe_parsed(row, "release")?,
        attempts: row.get("attempts")?,
        created_at: row.get("created_at")?,
        ended_at: row.get("ended_at")?,
        receipt: json(row, "receipt")?,
        error: json(row, "error")?,
        requested_by: json(row, "requested_by")?,
        cancelled_by: json(row, "cancelled_by")?,
        found: row.get("found")?,
    })
}
