//! The volumes that deploy.toml names, each with the engine's name for it, which stays when the app is
//! renamed. A row is written before its volume is made, and deleted when its data was removed.

use rusqlite::{Connection, OptionalExtension};

use super::{Result, StoreError, now, parsed};
use crate::ids::AppName;

/// The engine's name for an app's volume; recorded if it is new.
pub fn record(db: &Connection, app: &AppName, name: &str) -> Result<String> {
    let mut query =
        db.prepare_cached("SELECT volume FROM named_volumes WHERE app = ?1 AND name = ?2")?;
    let known: Option<String> = query
        .query_row((app.as_str(), name), |row| row.get(0))
        .optional()?;
    if let Some(volume) = known {
        return Ok(volume);
    }
    let volume = format!("cutover-{app}-{name}");
    // `a-b` and its `c` would have the name of `a` and its `b-c`.
    let mut taken = db.prepare_cached("SELECT app FROM named_volumes WHERE volume = ?1")?;
    let taken: Option<AppName> = taken
        .query_row([&volume], |row| parsed(row, "app"))
        .optional()?;
    if let Some(other) = taken {
        return Err(StoreError::Refused(format!(
            "the volume `{volume}` is one of the app `{other}`: give `{name}` another name"
        )));
    }
    let mut insert = db.prepare_cached(
        "INSERT INTO named_volumes (app, name, volume, made_at) VALUES (?1, ?2, ?3, ?4)",
    )?;
    insert.execute((app.as_str(), name, &volume, now()))?;
    Ok(volume)
}

/// The engine's names for an app's volumes.
pub fn of_app(db: &Connection, app: &AppName) -> Result<Vec<String>> {
    let mut query =
        db.prepare_cached("SELECT volume FROM named_volumes WHERE app = ?1 ORDER BY name")?;
    let rows = query.query_map([app.as_str()], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Deletes the row of a volume that is gone.
pub fn delete(db: &Connection, volume: &str) -> Result<()> {
    db.execute("DELETE FROM named_volumes WHERE volume = ?1", [volume])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, app_names};

    #[tokio::test]
    async fn a_volume_keeps_its_name_and_is_one_apps_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let app = |name: &str| name.parse::<AppName>().unwrap();
            assert_eq!(record(db, &app("a"), "b-c")?, "cutover-a-b-c");
            assert_eq!(record(db, &app("a"), "b-c")?, "cutover-a-b-c");
            assert!(record(db, &app("a-b"), "c").is_err());
            app_names::rename(db, &app("a"), &app("new"))?;
            assert_eq!(record(db, &app("new"), "b-c")?, "cutover-a-b-c");
            assert_eq!(of_app(db, &app("new"))?, ["cutover-a-b-c"]);
            assert!(
                record(db, &app("a"), "b-c").is_err(),
                "it is the other's now"
            );
            Ok(())
        });
        write.await.unwrap();
    }
}
