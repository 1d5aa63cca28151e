//! Pushes over HTTP that git is receiving right now. A row is written before git may move the ref, and
//! deleted in the transaction that stores what became of it.

use rusqlite::Connection;

use super::{Result, json, maybe_parsed, now, parsed, to_json};
use crate::ids::{AppName, CommitId};
use crate::principal::Requester;

/// A ref that git may move to a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingPush {
    pub app: AppName,
    /// `refs/heads/…`
    pub git_ref: String,
    /// `None`: the ref is new.
    pub old: Option<CommitId>,
    /// The new commit; for an annotated tag, the id of the tag object.
    pub commit: CommitId,
    /// `-o cutover.no-cache`: build without the cache of earlier images.
    pub no_cache: bool,
    /// `-o cutover.pull`: ask the registries for the base images anew.
    pub pull: bool,
    /// `-o cutover.skip`: do not deploy.
    pub skip: bool,
    pub requested_by: Requester,
}

/// Stores the refs of one push.
pub fn insert(db: &Connection, push: &[PendingPush]) -> Result<()> {
    let at = now();
    let mut insert = db.prepare_cached(
        "INSERT INTO pending_pushes (app, ref, old, commit_id, no_cache, pull, skip, requested_by,
                                     at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for one in push {
        insert.execute((
            one.app.as_str(),
            &one.git_ref,
            one.old.as_ref().map(CommitId::as_str),
            one.commit.as_str(),
            one.no_cache,
            one.pull,
            one.skip,
            to_json(&one.requested_by)?,
            at,
        ))?;
    }
    Ok(())
}

/// Deletes a pending push; returns whether it was still there.
pub fn delete(db: &Connection, app: &AppName, git_ref: &str, commit: &CommitId) -> Result<bool> {
    let mut delete = db.prepare_cached(
        "DELETE FROM pending_pushes WHERE app = ?1 AND ref = ?2 AND commit_id = ?3",
    )?;
    Ok(delete.execute((app.as_str(), git_ref, commit.as_str()))? > 0)
}

/// All pending refs, oldest first, each with the time at which its push was stored (milliseconds since
/// 1970): refs with the same time belong to one push.
pub fn all(db: &Connection) -> Result<Vec<(i64, PendingPush)>> {
    let mut query = db.prepare_cached("SELECT * FROM pending_pushes ORDER BY rowid")?;
    let rows = query.query_map([], |row| {
        let push = PendingPush {
            app: parsed(row, "app")?,
            git_ref: row.get("ref")?,
            old: maybe_parsed(row, "old")?,
            commit: parsed(row, "commit_id")?,
            no_cache: row.get("no_cache")?,
            pull: row.get("pull")?,
            skip: row.get("skip")?,
            requested_by: json(row, "requested_by")?.ok_or(rusqlite::Error::InvalidQuery)?,
        };
        Ok((row.get("at")?, push))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
