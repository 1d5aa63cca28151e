//! Records what became of each ref: in the database, and in the log if nothing is deployed.

use rusqlite::Connection;

use super::{Moved, Outcome, Result};
use crate::ids::DeliveryId;
use crate::principal::Requester;
use crate::store::moved_refs::{self, MovedRef};

/// Stores what became of the refs of a push; both lists have the same order.
pub(super) fn record(
    db: &Connection,
    refs: &[Moved],
    outcomes: &[Outcome],
    delivery: Option<&DeliveryId>,
    by: &Requester,
) -> Result<()> {
    for (moved, outcome) in refs.iter().zip(outcomes) {
        let Some(app) = &outcome.app else { continue };
        let row = MovedRef {
            app,
            delivery,
            git_ref: &moved.git_ref,
            old: moved.old.as_ref(),
            new: moved.commit(),
            deployment: outcome.deployment.as_ref(),
            reason: outcome.reason.as_deref(),
            requested_by: by,
        };
        moved_refs::insert(db, &row)?;
    }
    Ok(())
}

/// Logs the refs that are not deployed, and why.
pub(super) fn log(outcomes: &[Outcome]) {
    for outcome in outcomes
        .iter()
        .filter(|it| it.deployment.is_none() || it.skipped)
    {
        let app = outcome.app.as_ref().map_or("", |app| app.as_str());
        tracing::info!(app, "{outcome}");
    }
}
