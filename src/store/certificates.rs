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
    /// What its authority says of when to renew it.
    pub renewal: Option<Renewal>,
    /// When one was last renewed early because its authority wanted it.
    pub hastened_at: Option<i64>,
}

/// When an authority wants a certificate renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The certificate, by its authority's name for it.
    pub of: String,
    /// `None`: it does not say.
    pub at: Option<i64>,
    /// The address of a page that says why.
    pub why: Option<String>,
    /// When it is asked again.
    pub ask_at: i64,
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

/// A name has a new certificate. `hastened`: it was renewed early because its authority wanted it.
pub fn obtained(db: &Connection, name: &str, directory: &str, hastened: bool) -> Result<()> {
    db.execute(
        "INSERT INTO certificates (name, directory) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET directory = ?2, order_url = NULL, asked_at = NULL,
            failures = 0, error = NULL, next_try = NULL, hastened_at = coalesce(?3, hastened_at)",
        (name, directory, hastened.then(now)),
    )?;
    Ok(())
}

/// What an authority says of when to renew a name's certificate.
pub fn set_renewal(db: &Connection, name: &str, renewal: &Renewal) -> Result<()> {
    db.execute(
        "INSERT INTO certificates (name, renewal_of, renewal_at, renewal_why, renewal_ask_at)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (name) DO UPDATE SET renewal_of = ?2, renewal_at = ?3, renewal_why = ?4,
            renewal_ask_at = ?5",
        (name, &renewal.of, renewal.at, &renewal.why, renewal.ask_at),
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
        renewal: renewal(row)?,
        hastened_at: row.get("hastened_at")?,
    })
}

fn renewal(row: &Row<'_>) -> rusqlite::Result<Option<Renewal>> {
    let Some(of) = row.get("renewal_of")? else {
        return Ok(None);
    };
    Ok(Some(Renewal {
        of,
        at: row.get("renewal_at")?,
        why: row.get("renewal_why")?,
        ask_at: row.get("renewal_ask_at")?,
    }))
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
            obtained(db, "b.test", "dir", false)?;
            let state = &all(db)?["b.test"];
            assert_eq!((state.app.as_deref(), state.failures), (Some("hello"), 0));
            forget(db, "b.test")?;
            assert!(!all(db)?.contains_key("b.test"));
            obtained(db, "a.test", "dir", false)?;
            let directory = Some("dir".to_owned());
            assert_eq!(
                of()?,
                State {
                    directory,
                    ..Default::default()
                }
            );
            let renewal = Renewal {
                of: "key.serial".into(),
                at: Some(7),
                why: None,
                ask_at: 5,
            };
            set_renewal(db, "a.test", &renewal)?;
            obtained(db, "a.test", "dir", true)?;
            obtained(db, "a.test", "dir", false)?;
            let state = of()?;
            assert_eq!(state.renewal, Some(renewal));
            assert!(state.hastened_at.is_some());
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
