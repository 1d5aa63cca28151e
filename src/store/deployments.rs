//! Deployments: one row each, from the moment of the request.

use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use super::releases::Release;
use super::{
    Result, StoreError, actions, app_names, apps, events, json, maybe_parsed, now, parsed,
    statuses, steps, to_json,
};
use crate::ids::{AppName, CommitId, DeploymentId, ReleaseId};
use crate::principal::Requester;
use crate::proxy::control::Receipt;
use crate::state::{self, Event, State};

/// What requested the deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    Webhook,
    Push,
    Api,
    Cli,
    Rollback,
    AutoRollback,
    /// The registry has another image under the app's name for it.
    Poll,
}

/// What a deployment should make live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// The tip of the app's branch at the time when the deployment runs.
    Branch,
    /// The commit of a push, or the tip of the branch if the branch has moved on since.
    Pushed(CommitId),
    /// A branch, tag or commit that a person named.
    Named(String),
    /// A kept release.
    Release(ReleaseId),
    /// The release that is live when the deployment runs: the same images and settings, in new
    /// instances.
    Again,
}

/// Why a deployment did not go live, or did not stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Failure {
    /// A stable identifier for programs.
    #[schema(example = "build_failed")]
    pub code: String,
    pub message: String,
    /// The step that failed; null if none had begun.
    #[schema(required, example = "build")]
    pub step: Option<String>,
    /// The last lines of the step's log.
    pub log_tail: Vec<String>,
}

impl Failure {
    /// A failure without a step or log lines.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            step: None,
            log_tail: vec![],
        }
    }
}

#[derive(Debug, Clone)]
pub struct Deployment {
    pub id: DeploymentId,
    pub app: AppName,
    pub trigger: Trigger,
    pub goal: Goal,
    pub git_ref: Option<String>,
    pub commit: Option<CommitId>,
    pub message: Option<String>,
    pub author: Option<String>,
    /// Whether to build without the cache of earlier images.
    pub no_cache: bool,
    /// Whether to ask the registries for the base images anew.
    pub pull: bool,
    pub state: State,
    pub release: Option<ReleaseId>,
    /// How often it was started; more than once if the agent or the engine was interrupted.
    pub attempts: u32,
    pub created_at: i64,
    pub ended_at: Option<i64>,
    pub receipt: Option<Receipt>,
    pub error: Option<Failure>,
    /// `None` if it was requested before this was recorded.
    pub requested_by: Option<Requester>,
    pub cancelled_by: Option<Requester>,
    /// Whether what it deploys is known to exist. Until then it changes nothing for others.
    pub found: bool,
}

/// What is known of a deployment when it is requested.
#[derive(Debug, Clone)]
pub struct NewDeployment {
    pub app: AppName,
    pub trigger: Trigger,
    pub goal: Goal,
    pub git_ref: Option<String>,
    pub commit: Option<CommitId>,
    pub message: Option<String>,
    pub author: Option<String>,
    /// Whether to build without the cache of earlier images.
    pub no_cache: bool,
    /// Whether to ask the registries for the base images anew.
    pub pull: bool,
    pub requested_by: Requester,
}

/// The most deployments of an app that may wait without their commit having been found.
const UNFOUND: usize = 20;

/// Queues a deployment. The newest waiting one wins, but only once its commit has been found
/// ([`set_found`]): whoever comes with nothing to deploy must not cost others their turn. What a
/// rollback deploys is known; and a request for the same as a waiting one takes its place at once.
///
/// An automatic rollback supersedes nothing and is not superseded: it runs first, since the live
/// release is bad, and the waiting deployment may take long and fail. Nor does [`Goal::Again`]: neither
/// does what the other is to do.
///
/// Refused if the app is no longer in deploy.toml, unless it is an automatic rollback.
pub fn enqueue(db: &Connection, new: &NewDeployment) -> Result<Deployment> {
    let app = &new.app;
    // The deploy.toml that was in force when the request arrived may be out of date by now.
    if new.trigger != Trigger::AutoRollback && app_names::is_gone(db, app)? {
        let why = format!("`{app}` is no longer in deploy.toml");
        return Err(StoreError::Refused(why));
    }
    let older = match new.trigger {
        Trigger::AutoRollback => vec![],
        _ if new.goal == Goal::Again => vec![],
        _ => waiting(db, &new.app)?,
    };
    let queued = insert(db, new)?;
    let unfound = older.iter().filter(|older| !older.found).count();
    let beyond = (unfound + 1).saturating_sub(UNFOUND);
    let oldest = older.iter().filter(|older| !older.found).take(beyond);
    let oldest: Vec<_> = oldest.map(|older| older.id.clone()).collect();
    for older in &older {
        if queued.found || stands_and_falls_with(older, new) || oldest.contains(&older.id) {
            supersede(db, older, &queued.id)?;
        }
    }
    Ok(queued)
}

/// Records a push that is skipped before it is queued. It supersedes nothing.
pub fn skip(db: &Connection, new: &NewDeployment, why: &str) -> Result<Deployment> {
    let id = insert(db, new)?.id;
    end(db, &id, Event::Skip, Some(&Failure::new("skipped", why)))?;
    get(db, &id)?.ok_or_else(|| StoreError::Refused("the deployment was not stored".into()))
}

/// Records that what a waiting or running deployment deploys exists. From now on it counts: the ones
/// that were waiting before it are superseded.
pub fn set_found(db: &Connection, deployment: &Deployment) -> Result<()> {
    db.execute(
        "UPDATE deployments SET found = 1 WHERE id = ?1",
        [deployment.id.as_str()],
    )?;
    for older in waiting(db, &deployment.app)? {
        if older.id < deployment.id {
            supersede(db, &older, &deployment.id)?;
        }
    }
    Ok(())
}

fn supersede(db: &Connection, older: &Deployment, newer: &DeploymentId) -> Result<()> {
    let why = format!("the newer deployment `{newer}` took its place in the queue");
    let error = Failure::new("superseded", why);
    end(db, &older.id, Event::Supersede, Some(&error))?;
    tracing::info!(app = %older.app, deployment = %older.id, "superseded: {}", error.message);
    Ok(())
}

/// Whether a waiting deployment and a newer request deploy the same, or both nothing.
fn stands_and_falls_with(older: &Deployment, new: &NewDeployment) -> bool {
    match (&older.goal, &new.goal) {
        // Both deploy the branch's tip. Without its message, the newer one may still be skipped.
        (Goal::Pushed(_), Goal::Pushed(_)) => older.git_ref == new.git_ref && new.message.is_some(),
        (older, new) => older == new,
    }
}

fn insert(db: &Connection, new: &NewDeployment) -> Result<Deployment> {
    let id = DeploymentId::new();
    let found = matches!(new.goal, Goal::Release(_));
    let mut insert = db.prepare_cached(
        "INSERT INTO deployments
            (id, app, trigger, want, ref, commit_id, message, author, state, created_at, no_cache,
             requested_by, found, pull)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'queued', ?9, ?10, ?11, ?12, ?13)",
    )?;
    insert.execute((
        id.as_str(),
        new.app.as_str(),
        to_json(&new.trigger)?,
        to_json(&new.goal)?,
        &new.git_ref,
        new.commit.as_ref().map(CommitId::as_str),
        &new.message,
        &new.author,
        now(),
        new.no_cache,
        to_json(&new.requested_by)?,
        found,
        new.pull,
    ))?;
    record(db, &id, new)?;
    statuses::changed(db, &id)?;
    get(db, &id)?.ok_or_else(|| StoreError::Refused("the deployment was not stored".into()))
}

/// Records in the audit log who requests it, and what is live before.
fn record(db: &Connection, id: &DeploymentId, new: &NewDeployment) -> Result<()> {
    let kind = match (new.trigger, &new.goal) {
        (Trigger::Rollback | Trigger::AutoRollback, _) => actions::Kind::Rollback,
        (_, Goal::Again) => actions::Kind::Restart,
        _ => actions::Kind::Deploy,
    };
    let mut detail = serde_json::json!({
        "deployment": id,
        "trigger": new.trigger,
        "live": apps::serving(db, &new.app)?.live,
    });
    match &new.goal {
        Goal::Release(to) => detail["to"] = serde_json::json!(to),
        Goal::Named(name) => detail["to"] = serde_json::json!(name),
        Goal::Pushed(commit) => detail["to"] = serde_json::json!(commit),
        Goal::Branch | Goal::Again => {}
    }
    actions::insert(db, kind, Some(&new.app), &detail, &new.requested_by)
}

/// Records the deployment that made an adopted release, unless it is there. Nobody is notified of it: it
/// ended long ago.
pub fn insert_adopted(db: &Connection, release: &Release, by: &Requester) -> Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO deployments
            (id, app, trigger, want, commit_id, message, author, state, release, attempts, created_at,
             ended_at, requested_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'live', ?8, 1, ?9, ?9, ?10)
         ON CONFLICT (id) DO NOTHING",
    )?;
    insert.execute((
        release.deployment.as_str(),
        release.app.as_str(),
        to_json(&Trigger::Cli)?,
        to_json(&Goal::Named(release.commit.to_string()))?,
        release.commit.as_str(),
        &release.message,
        &release.author,
        release.id.as_str(),
        release.created_at,
        to_json(by)?,
    ))?;
    Ok(())
}

/// Applies an event to the state in the database, which is authoritative. Returns the new state;
/// refuses an illegal transition.
pub fn apply(db: &Connection, id: &DeploymentId, event: Event) -> Result<State> {
    let mut query = db.prepare_cached("SELECT state FROM deployments WHERE id = ?1")?;
    let from: State = query.query_row([id.as_str()], |row| parsed(row, "state"))?;
    let to = state::next(from, event).map_err(|e| StoreError::Refused(e.to_string()))?;
    let mut update = db.prepare_cached("UPDATE deployments SET state = ?2 WHERE id = ?1")?;
    update.execute((id.as_str(), to.as_str()))?;
    statuses::changed(db, id)?;
    Ok(to)
}

/// Applies an event that leads to a rest state, and stores why.
pub fn end(
    db: &Connection,
    id: &DeploymentId,
    event: Event,
    error: Option<&Failure>,
) -> Result<State> {
    let state = apply(db, id, event)?;
    let why = error.map_or(state.as_str(), |error| error.message.as_str());
    steps::stop(db, id, why)?;
    let error = error.map(to_json).transpose()?;
    let mut update =
        db.prepare_cached("UPDATE deployments SET ended_at = ?2, error = ?3 WHERE id = ?1")?;
    update.execute((id.as_str(), now(), error))?;
    events::ended(db, id, state)?;
    Ok(state)
}

/// Adds the last lines of a log to why a deployment ended.
pub fn set_tail(db: &Connection, id: &DeploymentId, tail: Vec<String>) -> Result<()> {
    let Some(error) = get(db, id)?.and_then(|it| it.error) else {
        return Ok(());
    };
    let error = Failure {
        log_tail: tail,
        ..error
    };
    db.execute(
        "UPDATE deployments SET error = ?2 WHERE id = ?1",
        (id.as_str(), to_json(&error)?),
    )?;
    Ok(())
}

pub fn set_commit(
    db: &Connection,
    id: &DeploymentId,
    commit: &CommitId,
    message: &str,
    author: &str,
) -> Result<()> {
    let query = "SELECT commit_id FROM deployments WHERE id = ?1";
    let before: Option<CommitId> =
        db.query_row(query, [id.as_str()], |row| maybe_parsed(row, "commit_id"))?;
    db.execute(
        "UPDATE deployments SET commit_id = ?2, message = ?3, author = ?4 WHERE id = ?1",
        (id.as_str(), commit.as_str(), message, author),
    )?;
    if let Some(before) = before.filter(|before| before != commit) {
        statuses::left(db, id, &before)?;
    }
    statuses::changed(db, id)
}

pub fn set_release(db: &Connection, id: &DeploymentId, release: &ReleaseId) -> Result<()> {
    db.execute(
        "UPDATE deployments SET release = ?2 WHERE id = ?1",
        (id.as_str(), release.as_str()),
    )?;
    Ok(())
}

pub fn set_receipt(db: &Connection, id: &DeploymentId, receipt: &Receipt) -> Result<()> {
    db.execute(
        "UPDATE deployments SET receipt = ?2 WHERE id = ?1",
        (id.as_str(), to_json(receipt)?),
    )?;
    Ok(())
}

/// Records who cancels the deployment; the first requester counts.
pub fn set_cancelled_by(db: &Connection, id: &DeploymentId, by: &Requester) -> Result<()> {
    db.execute(
        "UPDATE deployments SET cancelled_by = coalesce(cancelled_by, ?2) WHERE id = ?1",
        (id.as_str(), to_json(by)?),
    )?;
    Ok(())
}

/// Counts an attempt that starts; returns its number, from 1.
pub fn count_attempt(db: &Connection, id: &DeploymentId) -> Result<u32> {
    let sql = "UPDATE deployments SET attempts = attempts + 1 WHERE id = ?1 RETURNING attempts";
    Ok(db.query_row(sql, [id.as_str()], |row| row.get(0))?)
}

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

/// The deployment of an app that runs next: an automatic rollback, else the newest in the queue.
pub fn next_in_queue(db: &Connection, app: &AppName) -> Result<Option<Deployment>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM deployments INDEXED BY deployments_open
         WHERE app = ?1 AND ended_at IS NULL AND state = 'queued'
         ORDER BY trigger = ?2 DESC, id DESC LIMIT 1",
    )?;
    let automatic = to_json(&Trigger::AutoRollback)?;
    let found = query.query_row((app.as_str(), automatic), from_row);
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
fn waiting(db: &Connection, app: &AppName) -> Result<Vec<Deployment>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn asked(trigger: Trigger) -> NewDeployment {
        NewDeployment {
            app: "hello".parse().unwrap(),
            trigger,
            goal: Goal::Branch,
            git_ref: None,
            commit: None,
            message: None,
            author: None,
            no_cache: false,
            pull: false,
            requested_by: Requester::Agent,
        }
    }

    #[tokio::test]
    async fn an_automatic_rollback_and_a_push_that_waits_do_not_cost_each_other_their_turn() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let queued = store.write(|db| {
            let before = enqueue(db, &asked(Trigger::Webhook))?.id;
            let back = enqueue(db, &asked(Trigger::AutoRollback))?.id;
            let first = next_in_queue(db, &"hello".parse().unwrap())?;
            assert_eq!(first.unwrap().id, back);
            assert_eq!(get(db, &before)?.unwrap().state, State::Queued);

            let after = enqueue(db, &asked(Trigger::Webhook))?.id;
            assert_eq!(get(db, &before)?.unwrap().state, State::Superseded);
            let first = next_in_queue(db, &"hello".parse().unwrap())?;
            assert_eq!(first.unwrap().id, back);
            apply(db, &back, Event::Begin(state::Step::Start))?;
            let second = next_in_queue(db, &"hello".parse().unwrap())?;
            assert_eq!(second.unwrap().id, after);
            Ok(())
        });
        queued.await.unwrap();
    }

    #[tokio::test]
    async fn who_comes_with_nothing_found_costs_nobody_their_turn() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let queued = store.write(|db| {
            let app = "hello".parse().unwrap();
            let named = |name: &str| NewDeployment {
                goal: Goal::Named(name.into()),
                ..asked(Trigger::Api)
            };
            let state = |id: &DeploymentId| Ok::<_, StoreError>(get(db, id)?.unwrap().state);
            let good = enqueue(db, &asked(Trigger::Api))?;
            let typo = enqueue(db, &named("mian"))?;
            assert_eq!(state(&good.id)?, State::Queued);
            assert!(next_waiting(db, &app)?.is_none(), "nothing is found yet");
            assert_eq!(newest_unfound(db, &app, None)?.unwrap().id, typo.id);
            let other = newest_unfound(db, &app, Some(&typo.id))?;
            assert_eq!(other.unwrap().id, good.id);
            end(db, &typo.id, Event::Fail, None)?;
            set_found(db, &good)?;
            assert_eq!(next_waiting(db, &app)?.unwrap().id, good.id);

            // Found, the newer one wins.
            let newer = enqueue(db, &named("main"))?;
            assert_eq!(next_waiting(db, &app)?.unwrap().id, good.id);
            set_found(db, &newer)?;
            assert_eq!(state(&good.id)?, State::Superseded);
            assert_eq!(next_waiting(db, &app)?.unwrap().id, newer.id);

            // A flood of names that do not exist is bounded, and what is found outlives it.
            for number in 0..2 * UNFOUND {
                enqueue(db, &named(&number.to_string()))?;
            }
            assert_eq!(waiting(db, &app)?.len(), UNFOUND + 1);
            assert_eq!(state(&newer.id)?, State::Queued);
            Ok(())
        });
        queued.await.unwrap();
    }
}
