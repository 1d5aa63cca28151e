//! The state of the names that certificates are ordered for, and how many orders were placed of late.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row};

use super::{Result, now};
use crate::ids::AppName;

/// What is known of a name. Times are in milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The authority of its certificate, or of the order that is under way.
    pub directory: Option<String>,
    /// The order that is under way.
    pub order_url: Option<String>,
    /// When somebody asked for a new certificate that is not there yet.
    pub asked_at: Option<i64>,
    /// How many attempts have failed since the last success.
    pub failures: u32,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// No attempt is made before.
    pub next_try: Option<i64>,
    /// The app that has asked for it, if deploy.toml does not name it; and until when that counts.
    pub app: Option<String>,
    pub allowed_until: Option<i64>,
}

/// All that is known, by name.
pub fn all(db: &Connection) -> Result<BTreeMap<String, State>> {
    let mut query = db.prepare_cached("SELECT * FROM certificates")?;
    let rows = query.query_map([], |row| Ok((row.get("name")?, from_row(row)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// How long orders are remembered, in milliseconds.
const REMEMBERED: i64 = 24 * 3_600_000;

/// An order is about to be placed: counted before it is, so that none is missed.
pub fn count_order(db: &Connection) -> Result<()> {
    db.execute(
        "DELETE FROM certificate_orders WHERE at < ?1",
        [now() - REMEMBERED],
    )?;
    db.execute("INSERT INTO certificate_orders (at) VALUES (?1)", [now()])?;
    Ok(())
}

/// When the orders since `since` were placed, oldest first.
pub fn orders_since(db: &Connection, since: i64) -> Result<Vec<i64>> {
    let mut query =
        db.prepare_cached("SELECT at FROM certificate_orders WHERE at >= ?1 ORDER BY at")?;
    let rows = query.query_map([since], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The order of a name is under way; `None` if it is not to be continued.
pub fn set_order(db: &Connection, name: &str, directory: &str, url: Option<&str>) -> Result<()> {
    db.execute(
        "INSERT INTO certificates (name, directory, order_url) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET directory = ?2, order_url = ?3",
        (name, directory, url),
    )?;
    Ok(())
}

/// A name has a new certificate.
pub fn obtained(db: &Connection, name: &str, directory: &str) -> Result<()> {
    db.execute(
        "INSERT INTO certificates (name, directory) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET directory = ?2, order_url = NULL, asked_at = NULL,
            failures = 0, error = NULL, next_try = NULL",
        (name, directory),
    )?;
    Ok(())
}

/// An attempt failed.
pub fn failed(db: &Connection, name: &str, error: &str, next_try: i64) -> Result<()> {
    db.execute(
        "INSERT INTO certificates (name, failures, error, next_try) VALUES (?1, 1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET failures = failures + 1, error = ?2, next_try = ?3",
        (name, error, next_try),
    )?;
    Ok(())
}

/// An app serves a name that deploy.toml does not have.
pub fn allow(db: &Connection, name: &str, app: &AppName, until: i64) -> Result<()> {
    db.execute(
        "INSERT INTO certificates (name, app, allowed_until) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET app = ?2, allowed_until = ?3",
        (name, app.as_str(), until),
    )?;
    Ok(())
}

/// No app serves the name any more.
pub fn forget(db: &Connection, name: &str) -> Result<()> {
    db.execute("DELETE FROM certificates WHERE name = ?1", [name])?;
    Ok(())
}

/// Somebody wants a new certificate now, whatever became of the last attempt.
pub fn ask(db: &Connection, name: &str) -> Result<()> {
    db.execute(
        "INSERT INTO certificates (name, asked_at) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET asked_at = ?2, next_try = NULL",
        (name, now()),
    )?;
    Ok(())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<State> {
    Ok(State {
        directory: row.get("directory")?,
        order_url: row.get("order_url")?,
        asked_at: row.get("asked_at")?,
        failures: row.get("failures")?,
        error: row.get("error")?,
        next_try: row.get("next_try")?,
        app: row.get("app")?,
        allowed_until: row.get("allowed_until")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn a_name_is_known_from_its_order_to_its_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let of = || Ok::<_, crate::store::StoreError>(all(db)?["a.test"].clone());
            set_order(db, "a.test", "dir", Some("order/1"))?;
            failed(db, "a.test", "down", 7)?;
            failed(db, "a.test", "refused", 8)?;
            let state = of()?;
            assert_eq!((state.failures, state.next_try), (2, Some(8)));
            assert_eq!(state.error.as_deref(), Some("refused"));
            assert_eq!(state.order_url.as_deref(), Some("order/1"));
            ask(db, "a.test")?;
            let state = of()?;
            assert_eq!((state.failures, state.next_try), (2, None));
            assert!(state.asked_at.is_some());
            let app: AppName = "hello".parse().unwrap();
            allow(db, "b.test", &app, 9)?;
            failed(db, "b.test", "down", 7)?;
            obtained(db, "b.test", "dir")?;
            let state = &all(db)?["b.test"];
            assert_eq!((state.app.as_deref(), state.failures), (Some("hello"), 0));
            forget(db, "b.test")?;
            assert!(!all(db)?.contains_key("b.test"));
            obtained(db, "a.test", "dir")?;
            let directory = Some("dir".to_owned());
            assert_eq!(
                of()?,
                State {
                    directory,
                    ..Default::default()
                }
            );
            Ok(())
        });
        write.await.unwrap();
    }

    #[tokio::test]
    async fn orders_are_counted_until_they_are_old() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            count_order(db)?;
            count_order(db)?;
            assert_eq!(orders_since(db, 0)?.len(), 2);
            assert_eq!(orders_since(db, now() + 1000)?.len(), 0);
            db.execute("UPDATE certificate_orders SET at = 1", [])?;
            count_order(db)?;
            assert_eq!(orders_since(db, 0)?.len(), 1);
            Ok(())
        });
        write.await.unwrap();
    }
}
