//! Every accepted webhook request, written in the transaction that queues its deployment.

use rusqlite::{Connection, OptionalExtension};

use super::{Result, maybe_parsed, now, parsed};
use crate::ids::{AppName, DeliveryId, DeploymentId};

/// What is known of a request when it is stored.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    pub app: AppName,
    pub forge: String,
    /// The forge's own id of it. Not signed, so kept for people and never trusted.
    pub forge_delivery: Option<String>,
    pub event: String,
    /// SHA-256 of the body, in hex.
    pub body_hash: String,
}

/// What a stored request led to; also the answer to the forge.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Outcome {
    pub delivery: DeliveryId,
    pub deployment: Option<DeploymentId>,
    pub reason: Option<String>,
}

/// The outcome of an earlier delivery with the same signed body that led to a deployment. The body
/// is what the signature covers, so a changed id in the headers does not make a replay a new push.
pub fn earlier(db: &Connection, delivery: &NewDelivery) -> Result<Option<Outcome>> {
    let mut query = db.prepare_cached(
        "SELECT id, deployment, reason FROM deliveries
         WHERE app = ?1 AND body_hash = ?2 AND deployment IS NOT NULL ORDER BY id LIMIT 1",
    )?;
    let found = query.query_row((delivery.app.as_str(), &delivery.body_hash), |row| {
        Ok(Outcome {
            delivery: parsed(row, "id")?,
            deployment: maybe_parsed(row, "deployment")?,
            reason: row.get("reason")?,
        })
    });
    Ok(found.optional()?)
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
