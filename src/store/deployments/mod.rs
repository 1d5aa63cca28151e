//! Deployments: one row each, from the moment of the request.

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::releases::Release;
use super::{Result, StoreError, events, maybe_parsed, now, parsed, statuses, steps, to_json};
use crate::ids::{AppName, CommitId, DeploymentId, ReleaseId};
use crate::principal::Requester;
use crate::proxy::control::Receipt;
use crate::state::{self, Event, State};

mod enqueue;
mod query;

pub use enqueue::{enqueue, set_found, skip};
pub use query::*;

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

/// An attempt that was ended for a reason that lies outside of the deployment does not count.
pub fn uncount_attempt(db: &Connection, id: &DeploymentId) -> Result<()> {
    let sql = "UPDATE deployments SET attempts = max(attempts - 1, 0) WHERE id = ?1";
    db.execute(sql, [id.as_str()])?;
    Ok(())
}
