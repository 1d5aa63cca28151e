//! Messages waiting to be sent, by topic. A message is written in the transaction of the change that it
//! reports, and deleted once it has been delivered or permanently refused.
//!
//! There are two ways to add one. [`put`] keeps one message per subject: a newer message replaces one
//! that still waits, so that an outdated message is never sent. [`append`] keeps every message, and
//! messages with the same key are delivered in the order in which they were added.

use rusqlite::{Connection, Row};

use super::{Result, now};

/// Which messages belong together, and how they are sent.
pub struct Topic {
    /// As stored; never changed.
    pub name: &'static str,
    pub order: Order,
}

#[derive(Clone, Copy)]
pub enum Order {
    /// Each message is sent when it is due.
    Any,
    /// The oldest message of a key, by subject and then by arrival, is sent first; the others wait
    /// behind it. A message that has failed `patience` times no longer holds them up.
    OldestFirst { patience: u32 },
}

/// A message as it was read; it may have been replaced since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    id: i64,
    /// Rises each time the message is replaced.
    revision: i64,
    pub topic: String,
    /// Messages with the same key are sent one at a time.
    pub key: String,
    pub payload: String,
    /// When its current payload was stored, in milliseconds since 1970.
    pub since: i64,
    /// When it should be sent, in milliseconds since 1970.
    pub due_at: i64,
    /// How many times in a row sending it has failed.
    pub attempts: u32,
}

/// Adds a message about `subject` in place of one that still waits. The new message is not due earlier
/// than the one that it replaces, so that a change does not cut short the wait for a receiver that is
/// down.
pub fn put(db: &Connection, topic: &Topic, key: &str, subject: &str, payload: &str) -> Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO outbox (topic, key, subject, payload, since, due_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5)
         ON CONFLICT (topic, key, subject) DO UPDATE SET
            payload = ?4, revision = revision + 1, since = ?5, due_at = max(due_at, ?5)",
    )?;
    upsert.execute((topic.name, key, subject, payload, now()))?;
    Ok(())
}

/// Adds a message behind the others of its key.
pub fn append(db: &Connection, topic: &Topic, key: &str, payload: &str) -> Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO outbox (topic, key, payload, since, due_at) VALUES (?1, ?2, ?3, ?4, ?4)",
    )?;
    insert.execute((topic.name, key, payload, now()))?;
    Ok(())
}

/// The messages of a topic that may be sent next, ordered by due time: at most one of each key, and
/// one more that has failed too often to hold up the others.
pub fn waiting(db: &Connection, topic: &Topic) -> Result<Vec<Message>> {
    let patience = match topic.order {
        Order::Any => 0,
        Order::OldestFirst { patience } => patience,
    };
    let mut query = db.prepare_cached(
        "SELECT * FROM (
            SELECT *, row_number() OVER (
                PARTITION BY key, attempts >= ?2
                ORDER BY iif(attempts >= ?2, due_at, 0), subject, id) AS turn
            FROM outbox WHERE topic = ?1)
         WHERE turn = 1 ORDER BY due_at",
    )?;
    let rows = query.query_map((topic.name, patience), from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// How many messages of a topic [`all`] reads.
const READ: i64 = 2000;

/// The messages of a topic, in the order in which they were added, up to a number that bounds what is read
/// at once.
pub fn all(db: &Connection, topic: &Topic) -> Result<Vec<Message>> {
    let mut query =
        db.prepare_cached("SELECT * FROM outbox WHERE topic = ?1 ORDER BY id LIMIT ?2")?;
    let rows = query.query_map((topic.name, READ), from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Removes a message that was delivered, or never will be. Returns whether it is gone: otherwise a newer
/// message has replaced it in the meantime, which is now due at once.
pub fn settle(db: &Connection, message: &Message) -> Result<bool> {
    let gone = db
        .prepare_cached("DELETE FROM outbox WHERE id = ?1 AND revision = ?2")?
        .execute((message.id, message.revision))?;
    db.prepare_cached("UPDATE outbox SET attempts = 0, due_at = ?2 WHERE id = ?1")?
        .execute((message.id, now()))?;
    Ok(gone > 0)
}

/// Records that the message could not be sent and is due again at `due_at`, in milliseconds since 1970.
pub fn postpone(db: &Connection, message: &Message, due_at: i64) -> Result<()> {
    db.prepare_cached("UPDATE outbox SET attempts = attempts + 1, due_at = ?2 WHERE id = ?1")?
        .execute((message.id, due_at))?;
    Ok(())
}

/// Makes every waiting message due at once and forgets its failed attempts.
pub fn hurry(db: &Connection) -> Result<()> {
    db.execute("UPDATE outbox SET attempts = 0, due_at = ?1", [now()])?;
    Ok(())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Message> {
    Ok(Message {
        id: row.get("id")?,
        revision: row.get("revision")?,
        topic: row.get("topic")?,
        key: row.get("key")?,
        payload: row.get("payload")?,
        since: row.get("since")?,
        due_at: row.get("due_at")?,
        attempts: row.get("attempts")?,
    })
}

#[cfg(test)]
pub fn example(payload: String, due_at: i64, attempts: u32) -> Message {
    Message {
        id: 1,
        revision: 1,
        topic: String::new(),
        key: String::new(),
        payload,
        since: 0,
        due_at,
        attempts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATEST: Topic = Topic {
        name: "latest",
        order: Order::Any,
    };
    const EACH: Topic = Topic {
        name: "each",
        order: Order::OldestFirst { patience: u32::MAX },
    };

    fn database() -> Connection {
        let mut db = Connection::open_in_memory().unwrap();
        crate::store::migrations::run(&mut db).unwrap();
        db
    }

    fn payloads(db: &Connection, topic: &Topic) -> Vec<String> {
        let all = waiting(db, topic).unwrap().into_iter();
        let mut payloads: Vec<_> = all.map(|message| message.payload).collect();
        payloads.sort_unstable();
        payloads
    }

    #[test]
    fn what_was_overtaken_is_not_sent() {
        let db = database();
        put(&db, &LATEST, "app", "one", "queued").unwrap();
        let read = waiting(&db, &LATEST).unwrap().remove(0);
        put(&db, &LATEST, "app", "one", "running").unwrap();
        assert_eq!(payloads(&db, &LATEST), ["running"]);
        // Delivering the older message does not settle the newer one.
        settle(&db, &read).unwrap();
        assert_eq!(payloads(&db, &LATEST), ["running"]);
        let read = waiting(&db, &LATEST).unwrap().remove(0);
        settle(&db, &read).unwrap();
        assert!(payloads(&db, &LATEST).is_empty());
    }

    #[test]
    fn the_wait_for_a_receiver_that_is_down_outlasts_a_change() {
        let db = database();
        put(&db, &LATEST, "app", "one", "queued").unwrap();
        let read = waiting(&db, &LATEST).unwrap().remove(0);
        let until = now() + 60_000;
        postpone(&db, &read, until).unwrap();
        put(&db, &LATEST, "app", "one", "running").unwrap();
        let newer = waiting(&db, &LATEST).unwrap().remove(0);
        assert_eq!((newer.due_at, newer.attempts), (until, 1));
        settle(&db, &read).unwrap();
        let newer = waiting(&db, &LATEST).unwrap().remove(0);
        assert!(newer.due_at <= now() && newer.attempts == 0);
    }

    #[test]
    fn one_that_waits_by_itself_holds_up_no_other() {
        let db = database();
        put(&db, &LATEST, "app", "one", "1").unwrap();
        put(&db, &LATEST, "app", "two", "2").unwrap();
        let read = waiting(&db, &LATEST).unwrap().remove(0);
        postpone(&db, &read, now() + 60_000).unwrap();
        assert_ne!(payloads(&db, &LATEST), [read.payload]);
    }

    #[test]
    fn each_message_is_delivered_in_order_and_a_key_waits_for_no_other() {
        let db = database();
        for payload in ["a1", "a1", "a2"] {
            append(&db, &EACH, "a", payload).unwrap();
        }
        append(&db, &EACH, "b", "b1").unwrap();
        assert_eq!(payloads(&db, &EACH), ["a1", "b1"]);
        // However often it fails, no other message of its key goes ahead of it.
        for _ in 0..50 {
            let all = waiting(&db, &EACH).unwrap();
            let head = all.iter().find(|message| message.key == "a").unwrap();
            assert_eq!(head.payload, "a1");
            postpone(&db, head, now() + 60_000).unwrap();
        }
        let mut delivered = Vec::new();
        while let Some(message) = waiting(&db, &EACH).unwrap().pop() {
            settle(&db, &message).unwrap();
            delivered.push(message.payload);
        }
        let of_a: Vec<_> = delivered.iter().filter(|it| it.starts_with('a')).collect();
        assert_eq!(of_a, ["a1", "a1", "a2"]);
        assert_eq!(delivered.len(), 4);
    }

    #[test]
    fn one_that_lost_patience_lets_the_later_ones_go_ahead() {
        const PATIENT: Topic = Topic {
            name: "patient",
            order: Order::OldestFirst { patience: 2 },
        };
        let db = database();
        // By subject, not by arrival.
        put(&db, &PATIENT, "app", "2", "later").unwrap();
        put(&db, &PATIENT, "app", "1", "first").unwrap();
        for _ in 0..2 {
            assert_eq!(payloads(&db, &PATIENT), ["first"]);
            let head = waiting(&db, &PATIENT).unwrap().remove(0);
            postpone(&db, &head, now() + 60_000).unwrap();
        }
        let all = waiting(&db, &PATIENT).unwrap();
        let order: Vec<_> = all.iter().map(|message| message.payload.as_str()).collect();
        assert_eq!(order, ["later", "first"]);
    }
}
