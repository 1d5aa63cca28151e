//! The values that secrets had before, encrypted, for as long as a kept release started with them. Which
//! versions a release started with stands in its row.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use super::{Result, StoreError, json, secrets};
use crate::ids::{AppName, ReleaseId};
use crate::principal::Requester;

/// A value that a secret had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    pub name: String,
    pub version: u32,
    /// The encrypted value.
    pub sealed: Vec<u8>,
}

/// Whether a kept release of the app `?1` started with the version of `t`, a row of secrets.
const IN_USE: &str = "EXISTS (SELECT 1 FROM releases r, json_each(r.secrets) started
    WHERE r.app = ?1 AND r.removed_at IS NULL AND started.key = t.name AND started.value = t.version)";

/// Records which versions a release starts with: those of now.
pub fn record(db: &Connection, release: &ReleaseId) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE releases SET secrets = (SELECT json_group_object(name, version) FROM secrets
            WHERE secrets.app = releases.app) WHERE id = ?1",
    )?;
    update.execute([release.as_str()])?;
    Ok(())
}

/// Keeps the value of a secret that is about to get another or none, if a release may need it.
pub fn keep(db: &Connection, app: &AppName, name: &str) -> Result<()> {
    let mut insert = db.prepare_cached(&format!(
        "INSERT OR REPLACE INTO former_secrets (app, name, version, sealed)
         SELECT app, name, version, sealed FROM secrets t
         WHERE app = ?1 AND name = ?2 AND {IN_USE}"
    ))?;
    insert.execute((app.as_str(), name))?;
    Ok(())
}

/// The version of a secret's next value: above all that are known, so that no two values share one.
pub fn next_version(db: &Connection, app: &AppName, name: &str) -> Result<u32> {
    let mut query = db.prepare_cached(
        "SELECT 1 + coalesce(max(version), 0) FROM (
            SELECT version FROM secrets WHERE app = ?1 AND name = ?2
            UNION ALL SELECT version FROM former_secrets WHERE app = ?1 AND name = ?2
            UNION ALL SELECT started.value FROM releases r, json_each(r.secrets) started
                WHERE r.app = ?1 AND started.key = ?2)",
    )?;
    Ok(query.query_row((app.as_str(), name), |row| row.get(0))?)
}

/// Deletes the values that no kept release of the app started with; after one is no longer kept.
pub fn forget(db: &Connection, app: &AppName) -> Result<()> {
    let mut delete = db.prepare_cached(&format!(
        "DELETE FROM former_secrets AS t WHERE app = ?1 AND NOT {IN_USE}"
    ))?;
    delete.execute([app.as_str()])?;
    Ok(())
}

/// The former values of an app's secrets.
pub fn of_app(db: &Connection, app: &AppName) -> Result<Vec<Former>> {
    let mut query = db.prepare_cached(
        "SELECT name, version, sealed FROM former_secrets WHERE app = ?1 ORDER BY name, version",
    )?;
    let rows = query.query_map([app.as_str()], |row| {
        Ok(Former {
            name: row.get("name")?,
            version: row.get("version")?,
            sealed: row.get("sealed")?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Replaces the encrypted form of a value that stays the same.
pub fn reseal(db: &Connection, app: &AppName, former: &Former, sealed: &[u8]) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE former_secrets SET sealed = ?4 WHERE app = ?1 AND name = ?2 AND version = ?3",
    )?;
    update.execute((app.as_str(), &former.name, former.version, sealed))?;
    Ok(())
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
    let mut query = db.prepare_cached("SELECT secrets FROM releases WHERE id = ?1")?;
    let then = query.query_row([release.as_str()], |row| json(row, "secrets"));
    let then: BTreeMap<String, u32> = then.optional()?.flatten().ok_or_else(|| {
        StoreError::Refused(format!(
            "it is not known with which secrets the release `{release}` started: it was adopted, or made \
             before Cutover recorded that"
        ))
    })?;
    let mut restored = Restored::default();
    let now = secrets::of_app(db, app)?;
    for secret in now.iter().filter(|it| !then.contains_key(&it.name)) {
        secrets::unset(db, app, &secret.name)?;
        restored.unset.push(secret.name.clone());
    }
    let former = of_app(db, app)?;
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
        secrets::put(db, app, &name, version, &former.sealed, by)?;
        let delete = "DELETE FROM former_secrets WHERE app = ?1 AND name = ?2 AND version = ?3";
        db.execute(delete, (app.as_str(), &name, version))?;
        restored.set.push(name);
    }
    Ok(restored)
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
            let set = |name: &str, value: &[u8]| secrets::set(db, &app, name, value, &by);
            let versions = |name: &str| {
                let all = of_app(db, &app).unwrap().into_iter();
                let of_name = all.filter(|it| it.name == name);
                of_name.map(|it| it.version).collect::<Vec<_>>()
            };
            let made = |number| {
                let made = release(db, number).unwrap();
                record(db, &made.id).unwrap();
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
            assert!(secrets::unset(db, &app, "A")?);
            assert_eq!(versions("A"), [2, 3]);
            set("A", b"a4")?;

            let restored = restore(db, &app, &one.id, &by)?;
            assert_eq!(
                (restored.set, restored.unset),
                (vec!["A".into()], vec!["B".into()])
            );
            let now = secrets::of_app(db, &app)?;
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
                secrets::of_app(db, &app)?[0].version,
                4,
                "nothing started with the fourth"
            );
            restore(db, &app, &two.id, &by)?;
            let now: Vec<_> = secrets::of_app(db, &app)?
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
            secrets::unset_all(db, &app)?;
            assert!(!secrets::any(db)?);
            Ok(())
        });
        write.await.unwrap();
    }
}
