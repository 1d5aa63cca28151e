//! Requests that carry an `Idempotency-Key`: sent again, they lead to the deployment that they led to first.

use rusqlite::{Connection, OptionalExtension};

use super::{Result, now, parsed};
use crate::ids::DeploymentId;

/// How long a key is remembered, in milliseconds.
const REMEMBERED: i64 = 24 * 3_600_000;

/// A request that is to be done once.
#[derive(Debug, Clone)]
pub struct Once {
    /// Whose key it is: those of others are other keys.
    pub holder: String,
    pub key: String,
    /// SHA-256 of what was asked for, in hex.
    pub request: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// It comes for the first time.
    Never,
    Done(DeploymentId),
    /// The key came with another request.
    Other,
}

pub fn before(db: &Connection, once: &Once) -> Result<Before> {
    let mut query = db.prepare_cached(
        "SELECT request, deployment FROM idempotency_keys WHERE holder = ?1 AND key = ?2 AND at > ?3",
    )?;
    let since = now() - REMEMBERED;
    let found = query.query_row((&once.holder, &once.key, since), |row| {
        Ok((row.get::<_, String>("request")?, parsed(row, "deployment")?))
    });
    Ok(match found.optional()? {
        None => Before::Never,
        Some((request, deployment)) if request == once.request => Before::Done(deployment),
        Some(_) => Before::Other,
    })
}

/// Remembers what a request led to, and forgets what is old.
pub fn insert(db: &Connection, once: &Once, deployment: &DeploymentId) -> Result<()> {
    db.execute(
        "DELETE FROM idempotency_keys WHERE at <= ?1",
        [now() - REMEMBERED],
    )?;
    db.execute(
        "INSERT OR REPLACE INTO idempotency_keys (holder, key, request, deployment, at)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        (
            &once.holder,
            &once.key,
            &once.request,
            deployment.as_str(),
            now(),
        ),
    )?;
    Ok(())
}
