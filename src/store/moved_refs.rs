//! What became of each ref that a push moved, whether it came by webhook, by post-receive hook or by
//! git over HTTP.

use rusqlite::Connection;

use super::{Result, to_json};
use crate::ids::{AppName, CommitId, DeliveryId, DeploymentId, MovedRefId};
use crate::principal::Requester;

pub struct MovedRef<'a> {
    pub app: &'a AppName,
    /// The delivery that reported the push, if it came by webhook.
    pub delivery: Option<&'a DeliveryId>,
    pub git_ref: &'a str,
    pub old: Option<&'a CommitId>,
    /// `None` if the ref was deleted.
    pub new: Option<&'a CommitId>,
    pub deployment: Option<&'a DeploymentId>,
    /// Why it is not deployed, or why an earlier deployment stands for it.
    pub reason: Option<&'a str>,
    pub requested_by: &'a Requester,
}

pub fn insert(db: &Connection, moved: &MovedRef<'_>) -> Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO moved_refs
            (id, app, delivery, ref, old, new, deployment, reason, requested_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    insert.execute((
        MovedRefId::new().as_str(),
        moved.app.as_str(),
        moved.delivery.map(DeliveryId::as_str),
        moved.git_ref,
        moved.old.map(CommitId::as_str),
        moved.new.map(CommitId::as_str),
        moved.deployment.map(DeploymentId::as_str),
        moved.reason,
        to_json(moved.requested_by)?,
    ))?;
    Ok(())
}
