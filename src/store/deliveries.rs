//! Every accepted webhook request, written in the transaction that queues its deployment.

use rusqlite::{Connection, OptionalExtension, Row};

use super::{Result, maybe_parsed, now, parsed};
use crate::ids::{AppName, CommitId, DeliveryId, DeploymentId};

/// What is known of a request when it is stored.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    pub app: AppName,
    pub forge: String,
    /// The forge's own id of the request. Most forges do not sign it, so it proves nothing by
    /// itself.
    pub forge_delivery: Option<String>,
    pub event: String,
    /// Hex SHA-256 of the body, and of the id if the forge signs it too.
    pub body_hash: String,
    /// Every branch and tag that moved, according to the request.
    pub moves: Vec<Move>,
}

/// A ref that moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// `refs/…`
    pub git_ref: String,
    /// `None`: the ref was created, or the sender does not say.
    pub old: Option<CommitId>,
    /// `None`: the ref was deleted.
    pub new: Option<CommitId>,
}

/// What a stored request led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub delivery: DeliveryId,
    pub deployment: Option<DeploymentId>,
    /// Why nothing is deployed.
    pub reason: Option<String>,
}

/// A delivery that led to a deployment, and the forge's id for the delivery.
pub struct Earlier {
    pub outcome: Outcome,
    pub forge_delivery: Option<String>,
}

const EARLIER: &str = "SELECT id, deployment, reason, forge_delivery FROM deliveries
     WHERE app = ?1 AND body_hash = ?2 AND deployment IS NOT NULL ORDER BY id LIMIT 1";

/// The first delivery with the same signed body that led to a deployment.
pub fn earlier(db: &Connection, delivery: &NewDelivery) -> Result<Option<Earlier>> {
    let mut query = db.prepare_cached(EARLIER)?;
    let found = query.query_row((delivery.app.as_str(), &delivery.body_hash), from_row);
    Ok(found.optional()?)
}

/// The first notice of a pull, which stands for all.
pub fn noise(db: &Connection, delivery: &NewDelivery) -> Result<Option<Outcome>> {
    let mut query = db.prepare_cached(
        "SELECT id, deployment, reason, forge_delivery FROM deliveries
         WHERE app = ?1 AND body_hash = ?2 AND event = 'pull' AND deployment IS NULL
         ORDER BY id LIMIT 1",
    )?;
    let found = query.query_row((delivery.app.as_str(), &delivery.body_hash), from_row);
    Ok(found.optional()?.map(|earlier| earlier.outcome))
}

pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Earlier> {
    let outcome = Outcome {
        delivery: parsed(row, "id")?,
        deployment: maybe_parsed(row, "deployment")?,
        reason: row.get("reason")?,
    };
    let forge_delivery = row.get("forge_delivery")?;
    Ok(Earlier {
        outcome,
        forge_delivery,
    })
}

pub fn insert(
    db: &Connection,
    new: &NewDelivery,
    deployment: Option<DeploymentId>,
    reason: Option<String>,
) -> Result<Outcome> {
    let outcome = Outcome {
        delivery: DeliveryId::new(),
        deployment,
        reason,
    };
    let mut insert = db.prepare_cached(
        "INSERT INTO deliveries
            (id, app, forge, forge_delivery, event, body_hash, received_at, deployment, reason)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    insert.execute((
        outcome.delivery.as_str(),
        new.app.as_str(),
        &new.forge,
        &new.forge_delivery,
        &new.event,
        &new.body_hash,
        now(),
        outcome.deployment.as_ref().map(DeploymentId::as_str),
        &outcome.reason,
    ))?;
    Ok(outcome)
}

/// How many steps of SQLite's virtual machine [`earlier`] has taken so far.
#[cfg(test)]
pub(super) fn steps_of_earlier(db: &Connection) -> i32 {
    let query = db.prepare_cached(EARLIER).unwrap();
    query.get_status(rusqlite::StatementStatus::VmStep)
}
