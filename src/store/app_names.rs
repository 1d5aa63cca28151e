//! Which apps the database knows, whether or not deploy.toml still has them.

use rusqlite::Connection;

use super::{Result, apps, now, parsed, statuses};
use crate::ids::AppName;

/// The app's route when deploy.toml last had it, as JSON; `None` if none was recorded.
pub fn route(db: &Connection, app: &AppName) -> Result<Option<String>> {
    let mut query = db.prepare_cached("SELECT route FROM apps WHERE name = ?1")?;
    let mut rows = query.query([app.as_str()])?;
    Ok(match rows.next()? {
        Some(row) => row.get(0)?,
        None => None,
    })
}

/// Whether the database has a live release, a route or a deployment of the app, or its removal.
pub fn is_known(db: &Connection, app: &AppName) -> Result<bool> {
    let mut query = db.prepare_cached(
        "SELECT 1 FROM apps WHERE name = ?1 AND (live_release IS NOT NULL OR route IS NOT NULL)
         UNION ALL SELECT 1 FROM deployments WHERE app = ?1
         UNION ALL SELECT 1 FROM actions WHERE app = ?1 LIMIT 1",
    )?;
    Ok(query.exists([app.as_str()])?)
}

/// Records which apps deploy.toml has. From then on no deployment of any other known app is queued,
/// except automatic rollbacks.
pub fn set_configured(db: &Connection, apps: &[AppName]) -> Result<()> {
    db.execute("UPDATE apps SET gone = 1 WHERE NOT gone", [])?;
    let mut update = db.prepare_cached("UPDATE apps SET gone = 0 WHERE name = ?1")?;
    for app in apps {
        update.execute([app.as_str()])?;
    }
    Ok(())
}

/// Whether the database knows the app, but deploy.toml no longer has it.
pub fn is_gone(db: &Connection, app: &AppName) -> Result<bool> {
    let mut query = db.prepare_cached("SELECT 1 FROM apps WHERE name = ?1 AND gone")?;
    Ok(query.exists([app.as_str()])?)
}

/// Records how an app is routed, as JSON, so that it can still be served when deploy.toml no longer has
/// it.
pub fn set_route(db: &Connection, app: &AppName, route: &str) -> Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO apps (name, route) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET route = ?2 WHERE route IS NOT ?2",
    )?;
    upsert.execute((app.as_str(), route))?;
    Ok(())
}

/// Forgets how an app was routed that takes no requests any more.
pub fn clear_route(db: &Connection, app: &AppName) -> Result<()> {
    let mut update = db.prepare_cached("UPDATE apps SET route = NULL WHERE name = ?1")?;
    update.execute([app.as_str()])?;
    Ok(())
}

/// Every app that is still in use: it serves, is being removed, has a container, or has a deployment
/// that has not ended. The app that switched last comes first.
pub fn in_use(db: &Connection) -> Result<Vec<AppName>> {
    let mut query = db.prepare_cached(
        "WITH used (name) AS (
            SELECT name FROM apps WHERE live_release IS NOT NULL OR removing IS NOT NULL
            UNION SELECT app FROM instances
            UNION SELECT app FROM deployments INDEXED BY deployments_open WHERE ended_at IS NULL)
         SELECT used.name AS name FROM used LEFT JOIN apps ON apps.name = used.name
         ORDER BY coalesce(apps.route_generation, 0) DESC, used.name",
    )?;
    let rows = query.query_map([], |row| parsed(row, "name"))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Records, before anything is removed, that an app is to be removed; with `volumes`, its data too.
pub fn begin_removal(db: &Connection, app: &AppName, volumes: bool) -> Result<()> {
    db.execute(
        "INSERT INTO apps (name, removing, removing_since) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET removing = ?2, removing_since = ?3",
        (app.as_str(), volumes, now()),
    )?;
    Ok(())
}

/// When the removal of an app began, in milliseconds since 1970; `None` if that was before it was recorded.
pub fn removing_since(db: &Connection, app: &AppName) -> Result<Option<i64>> {
    let mut query = db.prepare_cached("SELECT removing_since FROM apps WHERE name = ?1")?;
    Ok(query.query_row([app.as_str()], |row| row.get(0))?)
}

pub fn is_being_removed(db: &Connection, app: &AppName) -> Result<bool> {
    let mut query =
        db.prepare_cached("SELECT 1 FROM apps WHERE name = ?1 AND removing IS NOT NULL")?;
    Ok(query.exists([app.as_str()])?)
}

/// The apps whose removal has begun and not ended, each with whether its volumes go too.
pub fn being_removed(db: &Connection) -> Result<Vec<(AppName, bool)>> {
    let mut query =
        db.prepare_cached("SELECT name, removing FROM apps WHERE removing IS NOT NULL")?;
    let rows = query.query_map([], |row| Ok((parsed(row, "name")?, row.get("removing")?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Leaves the app without a live release; returns the generation of the route table without it.
pub fn take_off(db: &Connection, app: &AppName) -> Result<u64> {
    let generation = apps::next_generation(db, 0)?;
    db.execute(
        "UPDATE apps SET live_release = NULL, route_generation = ?2 WHERE name = ?1",
        (app.as_str(), generation as i64),
    )?;
    Ok(generation)
}

/// Records that the removal is complete. The generation of the app's route stays, so that no later one
/// is lower.
pub fn end_removal(db: &Connection, app: &AppName) -> Result<()> {
    db.execute(
        "UPDATE apps SET removing = NULL, removing_since = NULL, route = NULL, stopped_at = NULL, pinned = NULL,
            maintenance = NULL
         WHERE name = ?1",
        [app.as_str()],
    )?;
    Ok(())
}

/// Whether `old` has anything to carry over and is not being removed, and `new` does not serve yet.
pub fn can_rename(db: &Connection, old: &AppName, new: &AppName) -> Result<bool> {
    let mut query = db.prepare_cached(
        "SELECT 1 FROM apps WHERE name = ?1 AND removing IS NULL
         AND (live_release IS NOT NULL OR route IS NOT NULL)",
    )?;
    Ok(query.exists([old.as_str()])? && apps::serving(db, new)?.live.is_none())
}

/// Carries everything that is recorded for `old` over to `new`, in every table that has a column
/// `app`.
pub fn rename(db: &Connection, old: &AppName, new: &AppName) -> Result<()> {
    let generation = apps::next_generation(db, 0)?;
    db.execute("DELETE FROM apps WHERE name = ?1", [new.as_str()])?;
    db.execute(
        "UPDATE apps SET name = ?2, route = NULL, route_generation = ?3 WHERE name = ?1",
        (old.as_str(), new.as_str(), generation as i64),
    )?;
    let mut query = db.prepare(
        "SELECT t.name AS name FROM sqlite_schema t JOIN pragma_table_info(t.name) c
         WHERE t.type = 'table' AND c.name = 'app'",
    )?;
    let tables = query.query_map([], |row| row.get::<_, String>("name"))?;
    for table in tables.collect::<rusqlite::Result<Vec<_>>>()? {
        let sql = format!("UPDATE OR REPLACE {table} SET app = ?2 WHERE app = ?1");
        db.execute(&sql, (old.as_str(), new.as_str()))?;
    }
    // Mark the old name as gone, so that whatever still holds it, such as a delivery that is being
    // processed, is refused.
    db.execute(
        "INSERT INTO apps (name, gone, route_generation) VALUES (?1, 1, ?2)",
        (old.as_str(), generation as i64),
    )?;
    // The subject of a commit status is its app.
    db.execute(
        "UPDATE OR REPLACE statuses SET subject = ?2 WHERE kind = 'status' AND subject = ?1",
        (old.as_str(), new.as_str()),
    )?;
    statuses::rename(db, old, new)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn name(text: &str) -> AppName {
        text.parse().unwrap()
    }

    /// The tables that hold `text` in a column, once for each such column.
    fn mentions(db: &Connection, text: &str) -> Vec<String> {
        let mut query = db
            .prepare(
                "SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_info(t.name) c
                 WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'",
            )
            .unwrap();
        let columns = query
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        let columns: Vec<(String, String)> = columns.map(|column| column.unwrap()).collect();
        let holds = |(table, column): &(String, String)| {
            let sql = format!("SELECT 1 FROM \"{table}\" WHERE \"{column}\" = ?1");
            db.prepare(&sql).unwrap().exists([text]).unwrap()
        };
        let found = columns.iter().filter(|column| holds(column));
        found.map(|(table, _)| table.clone()).collect()
    }

    #[tokio::test]
    async fn a_renamed_app_keeps_everything_and_is_renamed_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            db.execute_batch(
                "INSERT INTO apps (name, live_release, route_generation, route)
                    VALUES ('old', 'r0000000000001', 4, 'the route');
                 INSERT INTO meta VALUES ('generation', '7');
                 INSERT INTO deployments (id, app, trigger, want, state, created_at, ended_at)
                    VALUES ('d1', 'old', '\"push\"', '\"branch\"', 'live', 1, 2),
                           ('d2', 'new', '\"push\"', '\"branch\"', 'failed', 1, 2);
                 INSERT INTO tips VALUES ('old', 'main', NULL, 'b'), ('new', 'main', NULL, 'c');
                 INSERT INTO reporting VALUES ('old', 1), ('new', 1);
                 INSERT INTO statuses (kind, subject, commit_id, app, deployment, phase, since)
                    VALUES ('status', 'old', 'c', 'old', 'd1', 'live', 1);
                 INSERT INTO outbox (topic, key, subject, payload, since, due_at)
                    VALUES ('commit-status', 'old', 'c', '{}', 1, 1);",
            )?;
            let (old, new) = (name("old"), name("new"));
            assert!(can_rename(db, &old, &new)?);
            rename(db, &old, &new)?;
            assert_eq!(mentions(db, "old"), ["apps"], "that it is gone");
            assert!(is_gone(db, &old)? && !is_gone(db, &new)?);
            let serving = apps::serving(db, &new)?;
            assert_eq!(serving.generation, 8, "above every table before");
            assert!(!can_rename(db, &old, &new)?, "once");
            // A new app with the old name is a different app: it is not renamed, since `new` is live.
            set_route(db, &old, "other")?;
            assert!(!can_rename(db, &old, &new)?);
            assert_eq!(mentions(db, "old"), ["apps"]);
            Ok(())
        });
        write.await.unwrap();
    }
}
