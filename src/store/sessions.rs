//! Who is signed in to the dashboard. A session belongs to a token, or to a user of this machine, and
//! ends with it. Only hashes are kept.

use rusqlite::{Connection, OptionalExtension, Row};

use super::{Result, now};

/// How long a session lasts without a request, and altogether, in milliseconds.
const IDLE: i64 = 7 * DAY;
const LONGEST: i64 = 30 * DAY;
const DAY: i64 = 24 * 3600 * 1000;
/// How exactly it is recorded when a session was used, in milliseconds.
const SEEN: i64 = 60_000;
/// The most sessions of one holder; a further one ends the oldest.
const MOST: i64 = 50;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// SHA-256 of the cookie's value, in hex.
    pub hash: String,
    pub holder: Holder,
    pub created_at: i64,
    pub seen_at: i64,
    /// The browser as it calls itself.
    pub browser: String,
    /// The client's address when it signed in.
    pub address: String,
}

/// Whose session it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// The token with this SHA-256, in hex.
    Token(String),
    /// A user of this machine, by a one-time link.
    Local(u32),
}

impl Holder {
    fn text(&self) -> String {
        match self {
            Self::Token(hash) => format!("token {hash}"),
            Self::Local(uid) => format!("uid {uid}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.split_once(' ')? {
            ("token", hash) => Some(Self::Token(hash.to_owned())),
            ("uid", uid) => Some(Self::Local(uid.parse().ok()?)),
            _ => None,
        }
    }
}

impl Session {
    pub fn new(hash: String, holder: Holder, browser: &str, address: &str) -> Self {
        Self {
            hash,
            holder,
            created_at: now(),
            seen_at: now(),
            browser: browser.chars().take(200).collect(),
            address: address.to_owned(),
        }
    }

    pub fn is_seen_anew(&self) -> bool {
        now() - self.seen_at >= SEEN
    }
}

/// Begins a session, and ends those that are over.
pub fn insert(db: &Connection, session: &Session) -> Result<()> {
    db.execute(
        "DELETE FROM sessions WHERE seen_at < ?1 OR created_at < ?2",
        (now() - IDLE, now() - LONGEST),
    )?;
    let holder = session.holder.text();
    db.execute(
        "DELETE FROM sessions WHERE holder = ?1 AND hash NOT IN
            (SELECT hash FROM sessions WHERE holder = ?1 ORDER BY seen_at DESC LIMIT ?2)",
        (&holder, MOST - 1),
    )?;
    let mut insert = db.prepare_cached(
        "INSERT INTO sessions (hash, holder, created_at, seen_at, browser, address)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    insert.execute((
        &session.hash,
        holder,
        session.created_at,
        session.seen_at,
        &session.browser,
        &session.address,
    ))?;
    Ok(())
}

/// The session with this hash, unless it is over.
pub fn get(db: &Connection, hash: &str) -> Result<Option<Session>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM sessions WHERE hash = ?1 AND seen_at >= ?2 AND created_at >= ?3",
    )?;
    let found = query.query_row((hash, now() - IDLE, now() - LONGEST), from_row);
    Ok(found.optional()?)
}

/// The sessions that are not over, the one seen last first.
pub fn all(db: &Connection) -> Result<Vec<Session>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM sessions WHERE seen_at >= ?1 AND created_at >= ?2 ORDER BY seen_at DESC",
    )?;
    let rows = query.query_map((now() - IDLE, now() - LONGEST), from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub fn set_seen(db: &Connection, hash: &str) -> Result<()> {
    let mut update = db.prepare_cached("UPDATE sessions SET seen_at = ?2 WHERE hash = ?1")?;
    update.execute((hash, now()))?;
    Ok(())
}

pub fn delete(db: &Connection, hash: &str) -> Result<()> {
    db.execute("DELETE FROM sessions WHERE hash = ?1", [hash])?;
    Ok(())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Session> {
    let holder: String = row.get("holder")?;
    Ok(Session {
        hash: row.get("hash")?,
        holder: Holder::parse(&holder).ok_or(rusqlite::Error::InvalidQuery)?,
        created_at: row.get("created_at")?,
        seen_at: row.get("seen_at")?,
        browser: row.get("browser")?,
        address: row.get("address")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn a_session_ends_by_itself_and_by_request() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let session =
                |hash: &str, uid| Session::new(hash.into(), Holder::Local(uid), "Firefox", "::1");
            for number in 0..60 {
                insert(db, &session(&number.to_string(), 1))?;
            }
            insert(db, &session("other", 2))?;
            assert_eq!(all(db)?.len() as i64, MOST + 1);
            let found = get(db, "other")?.unwrap();
            assert_eq!(found.holder, Holder::Local(2));
            db.execute(
                "UPDATE sessions SET seen_at = seen_at - ?1 WHERE hash = 'other'",
                [IDLE + 1],
            )?;
            assert_eq!(get(db, "other")?, None);
            set_seen(db, "other")?;
            assert!(get(db, "other")?.is_some());
            delete(db, "other")?;
            assert_eq!(get(db, "other")?, None);
            Ok(())
        });
        write.await.unwrap();
    }
}
