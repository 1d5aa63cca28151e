//! Pushes over http that git takes right now: written before git may move a ref, and gone with the
//! deployment that follows.

use rusqlite::Connection;

use super::{Result, now, parsed};
use crate::ids::{AppName, CommitId};

/// A ref that is deployed moves to a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingPush {
    pub app: AppName,
    /// `refs/heads/…`
    pub git_ref: String,
    /// For an annotated tag the tag's own id.
    pub commit: CommitId,
    /// `-o cutover.no-cache`: build every step anew.
    pub no_cache: bool,
}

pub fn insert(db: &Connection, push: &PendingPush) -> Result<()> {
    db.execute(
        "INSERT INTO taken (app, ref, commit_id, no_cache, at) VALUES (?1, ?2, ?3, ?4, ?5)",
        (
            push.app.as_str(),
            &push.git_ref,
            push.commit.as_str(),
            push.no_cache,
            now(),
        ),
    )?;
    Ok(())
}

pub fn delete(db: &Connection, push: &PendingPush) -> Result<()> {
    db.execute(
        "DELETE FROM taken WHERE app = ?1 AND ref = ?2 AND commit_id = ?3",
        (push.app.as_str(), &push.git_ref, push.commit.as_str()),
    )?;
    Ok(())
}

/// All that are left, oldest first, and when each began.
pub fn all(db: &Connection) -> Result<Vec<(PendingPush, i64)>> {
    let mut query = db.prepare_cached("SELECT * FROM taken ORDER BY rowid")?;
    let rows = query.query_map([], |row| {
        let push = PendingPush {
            app: parsed(row, "app")?,
            git_ref: row.get("ref")?,
            commit: parsed(row, "commit_id")?,
            no_cache: row.get("no_cache")?,
        };
        Ok((push, row.get("at")?))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
