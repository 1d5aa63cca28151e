//! Containers of instances that have been forgotten, for a day. Docker may still make one that it was
//! asked for: the agent that asked was killed, and what undid its deployment found nothing yet.

use rusqlite::{Connection, OptionalExtension};

use super::ours::Ours;
use super::{Result, now};

/// How long Docker can take at the very most, in milliseconds.
const KEEP: i64 = 24 * 3_600_000;

/// Keeps the name and the mark of an instance that is about to be forgotten. One without a mark could not
/// be told from somebody else's; one that was live and seen is there, or was removed: it is never looked for.
pub(super) fn insert(db: &Connection, instance: &str) -> Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO given_up (mark, name, at)
         SELECT mark, name, ?2 FROM instances
         WHERE name = ?1 AND mark IS NOT NULL AND engine IS NULL
         ON CONFLICT (mark) DO UPDATE SET name = excluded.name, at = excluded.at",
    )?;
    insert.execute((instance, now()))?;
    Ok(())
}

/// The forgotten containers of this name.
pub fn named(db: &Connection, name: &str) -> Result<Vec<Ours>> {
    let mut query = db.prepare_cached("SELECT mark FROM given_up WHERE name = ?1")?;
    let rows = query.query_map([name], |row| {
        Ok(Ours {
            name: name.to_owned(),
            mark: row.get("mark")?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The forgotten container of this name that carries this mark, unless an instance has it again.
pub fn get(db: &Connection, name: &str, mark: &str) -> Result<Option<Ours>> {
    let mut query = db.prepare_cached(
        "SELECT 1 FROM given_up WHERE mark = ?1 AND name = ?2
           AND NOT EXISTS (SELECT 1 FROM instances WHERE instances.mark = ?1)",
    )?;
    let found = query.query_row((mark, name), |_| Ok(())).optional()?;
    Ok(found.map(|()| Ours {
        name: name.to_owned(),
        mark: Some(mark.to_owned()),
    }))
}

/// Deletes what no container can come of any more.
pub fn prune(db: &Connection) -> Result<()> {
    db.execute("DELETE FROM given_up WHERE at < ?1", [now() - KEEP])?;
    Ok(())
}
