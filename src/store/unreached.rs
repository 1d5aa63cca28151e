//! Receivers of notifications that could not be reached the last time: why, and since when.

use rusqlite::Connection;

use super::events::TELLING;
use super::{Result, now};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// As in `[notify.NAME]`.
    pub receiver: String,
    /// When it failed for the first time since it was last reached, in milliseconds since 1970.
    pub since: i64,
    /// A sentence without secrets.
    pub error: String,
    /// How many messages wait for it.
    pub waiting: u64,
}

/// Records why the last message did not arrive.
pub fn failed(db: &Connection, receiver: &str, error: &str) -> Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO unreached (receiver, since, error) VALUES (?1, ?2, ?3)
         ON CONFLICT (receiver) DO UPDATE SET error = excluded.error",
    )?;
    upsert.execute((receiver, now(), error))?;
    Ok(())
}

/// Records that a message arrived, or that there is no such receiver any more.
pub fn forget(db: &Connection, receiver: &str) -> Result<()> {
    let mut delete = db.prepare_cached("DELETE FROM unreached WHERE receiver = ?1")?;
    delete.execute([receiver])?;
    Ok(())
}

/// All of them, by name.
pub fn all(db: &Connection) -> Result<Vec<Unreached>> {
    let mut query = db.prepare_cached(
        "SELECT receiver, since, error,
            (SELECT count(*) FROM outbox WHERE topic = ?1 AND key = receiver) AS waiting
         FROM unreached ORDER BY receiver",
    )?;
    let rows = query.query_map([TELLING.name], |row| {
        Ok(Unreached {
            receiver: row.get("receiver")?,
            since: row.get("since")?,
            error: row.get("error")?,
            waiting: row.get::<_, i64>("waiting")?.unsigned_abs(),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use super::super::outbox;
    use super::*;

    #[test]
    fn a_receiver_is_unreached_from_its_first_failure_until_it_is_reached() {
        let mut db = Connection::open_in_memory().unwrap();
        crate::store::migrations::run(&mut db).unwrap();
        failed(&db, "ops", "it answered 500").unwrap();
        db.execute("UPDATE unreached SET since = 7", []).unwrap();
        outbox::append(&db, &TELLING, "ops", "{}").unwrap();
        failed(&db, "ops", "it answered 404").unwrap();
        let expected = Unreached {
            receiver: "ops".into(),
            since: 7,
            error: "it answered 404".into(),
            waiting: 1,
        };
        assert_eq!(all(&db).unwrap(), [expected]);
        forget(&db, "ops").unwrap();
        assert!(all(&db).unwrap().is_empty());
    }
}
