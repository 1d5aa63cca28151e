//! Secrets that Cutover keeps for apps, encrypted before they get here; see `deploy::vault`.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, Row};

use super::former_secrets::{self, Former};
use super::{Result, StoreError, json, now, parsed, to_json};
use crate::ids::{AppName, ReleaseId};
use crate::principal::Requester;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    pub name: String,
    /// Numbers the values that it has had, from 1.
    pub version: u32,
    /// The encrypted value.
    pub sealed: Vec<u8>,
    pub set_at: i64,
    pub set_by: Option<Requester>,
}

/// Stores a value in place of the one before.
pub fn set(
    db: &Connection,
    app: &AppName,
    name: &str,
    sealed: &[u8],
    by: &Requester,
) -> Result<()> {
    let version = former_secrets::next_version(db, app, name)?;
    put(db, app, name, version, sealed, by)
}

/// Stores a value as this version, which belongs to no other value.
fn put(
    db: &Connection,
    app: &AppName,
    name: &str,
    version: u32,
    sealed: &[u8],
    by: &Requester,
) -> Result<()> {
    former_secrets::keep(db, app, name)?;
    let mut upsert = db.prepare_cached(
        "INSERT INTO secrets (app, name, version, sealed, set_at, set_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (app, name) DO UPDATE
         SET version = ?3, sealed = ?4, set_at = ?5, set_by = ?6",
    )?;
    upsert.execute((app.as_str(), name, version, sealed, now(), to_json(by)?))?;
    Ok(())
}

/// Replaces the encrypted form of a value that stays the same.
pub fn reseal(db: &Connection, app: &AppName, name: &str, sealed: &[u8]) -> Result<()> {
    let mut update =
        db.prepare_cached("UPDATE secrets SET sealed = ?3 WHERE app = ?1 AND name = ?2")?;
    update.execute((app.as_str(), name, sealed))?;
    Ok(())
}

/// Whether there was one.
pub fn unset(db: &Connection, app: &AppName, name: &str) -> Result<bool> {
    former_secrets::keep(db, app, name)?;
    let mut delete = db.prepare_cached("DELETE FROM secrets WHERE app = ?1 AND name = ?2")?;
    Ok(delete.execute((app.as_str(), name))? > 0)
}

pub fn unset_all(db: &Connection, app: &AppName) -> Result<()> {
    db.execute("DELETE FROM secrets WHERE app = ?1", [app.as_str()])?;
    let former = "DELETE FROM former_secrets WHERE app = ?1";
    db.execute(former, [app.as_str()])?;
    Ok(())
}

/// The secrets of an app, by name.
pub fn of_app(db: &Connection, app: &AppName) -> Result<Vec<Secret>> {
    let mut query = db.prepare_cached("SELECT * FROM secrets WHERE app = ?1 ORDER BY name")?;
    let rows = query.query_map([app.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The apps that have one, or had one whose value is kept.
pub fn apps(db: &Connection) -> Result<Vec<AppName>> {
    let mut query = db.prepare_cached(
        "SELECT app FROM secrets UNION SELECT app FROM former_secrets ORDER BY app",
    )?;
    let rows = query.query_map([], |row| parsed(row, "app"))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Whether any app has one, or had one whose value is kept.
pub fn any(db: &Connection) -> Result<bool> {
    let sql = "SELECT 1 FROM secrets UNION ALL SELECT 1 FROM former_secrets";
    Ok(db.prepare_cached(sql)?.exists([])?)
}

/// What [`restore`] changed: names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub set: Vec<String>,
    pub unset: Vec<String>,
}

/// Gives the app's secrets the values that a release started with; those that it did not have are unset.
pub fn restore(
    db: &Connection,
    app: &AppName,
    release: &ReleaseId,
    by: &Requester,
) -> Result<Restored> {
    let then = started_with(db, release)?.ok_or_else(|| {
        StoreError::Refused(format!(
            "it is not known with which secrets the release `{release}` started: it was adopted, or made \
             before Cutover recorded that"
        ))
    })?;
    let mut restored = Restored::default();
    let now = of_app(db, app)?;
    for secret in now.iter().filter(|it| !then.contains_key(&it.name)) {
        unset(db, app, &secret.name)?;
        restored.unset.push(secret.name.clone());
    }
    let former = former_secrets::of_app(db, app)?;
    for (name, version) in then {
        if now
            .iter()
            .any(|it| it.name == name && it.version == version)
        {
            continue;
        }
        let is_it = |it: &&Former| it.name == name && it.version == version;
        let Some(former) = former.iter().find(is_it) else {
            return Err(StoreError::Refused(format!(
                "the value that `{name}` had in the release `{release}` is no longer kept: nothing was changed"
            )));
        };
        put(db, app, &name, version, &former.sealed, by)?;
        former_secrets::delete(db, app, &name, version)?;
        restored.set.push(name);
    }
    Ok(restored)
}

/// The secrets that have another value now than a release started with, are new, or are gone: names. None
/// where it is not known.
pub fn changed_since(db: &Connection, app: &AppName, release: &ReleaseId) -> Result<Vec<String>> {
    let Some(then) = started_with(db, release)? else {
        return Ok(Vec::new());
    };
    let now = of_app(db, app)?.into_iter();
    let now: BTreeMap<String, u32> = now.map(|it| (it.name, it.version)).collect();
    let all: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    let changed = all.into_iter().filter(|it| then.get(*it) != now.get(*it));
    Ok(changed.cloned().collect())
}

/// The versions of the secrets that a release started with, by name.
fn started_with(db: &Connection, release: &ReleaseId) -> Result<Option<BTreeMap<String, u32>>> {
    let mut query = db.prepare_cached("SELECT secrets FROM releases WHERE id = ?1")?;
    let then = query.query_row([release.as_str()], |row| json(row, "secrets"));
    Ok(then.optional()?.flatten())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Secret> {
    Ok(Secret {
        name: row.get("name")?,
        version: row.get("version")?,
        sealed: row.get("sealed")?,
        set_at: row.get("set_at")?,
        set_by: json(row, "set_by")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture::release;
    use crate::store::{Store, releases};

    #[tokio::test]
    async fn a_value_is_kept_for_the_releases_that_started_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let app: AppName = "hello".parse().unwrap();
            let by = Requester::Agent;
            let set = |name: &str, value: &[u8]| super::set(db, &app, name, value, &by);
            let versions = |name: &str| {
                let all = former_secrets::of_app(db, &app).unwrap().into_iter();
                let of_name = all.filter(|it| it.name == name);
                of_name.map(|it| it.version).collect::<Vec<_>>()
            };
            let made = |number| {
                let made = release(db, number).unwrap();
                former_secrets::record(db, &made.id).unwrap();
                made
            };
            set("A", b"a1")?;
            set("A", b"a2")?;
            assert!(versions("A").is_empty(), "no release had the first");
            let one = made(1);
            set("A", b"a3")?;
            set("B", b"b1")?;
            assert_eq!(versions("A"), [2]);
            let two = made(1);
            assert!(unset(db, &app, "A")?);
            assert_eq!(versions("A"), [2, 3]);
            set("A", b"a4")?;

            let restored = restore(db, &app, &one.id, &by)?;
            assert_eq!(
                (restored.set, restored.unset),
                (vec!["A".into()], vec!["B".into()])
            );
            let now = super::of_app(db, &app)?;
            assert_eq!(now.len(), 1);
            assert_eq!((now[0].version, &now[0].sealed[..]), (2, &b"a2"[..]));
            assert_eq!(
                restore(db, &app, &one.id, &by)?,
                Restored::default(),
                "twice"
            );
            // A newer value's version is that of no other.
            set("A", b"a5")?;
            assert_eq!(
                super::of_app(db, &app)?[0].version,
                4,
                "nothing started with the fourth"
            );
            restore(db, &app, &two.id, &by)?;
            let now: Vec<_> = super::of_app(db, &app)?
                .into_iter()
                .map(|it| it.sealed)
                .collect();
            assert_eq!(now, [b"a3", b"b1"]);

            // With the release its values go, and they cannot be had any more.
            assert_eq!(versions("A"), [2]);
            releases::set_removed(db, &one.id)?;
            assert!(versions("A").is_empty());
            assert!(matches!(
                restore(db, &app, &one.id, &by),
                Err(StoreError::Refused(_))
            ));
            // What is not recorded is not guessed.
            let three = release(db, 1)?;
            assert!(matches!(
                restore(db, &app, &three.id, &by),
                Err(StoreError::Refused(_))
            ));
            unset_all(db, &app)?;
            assert!(!any(db)?);
            Ok(())
        });
        write.await.unwrap();
    }
}
