//! Deletes old rows. A delivery stays for as long as its deployment does, so that a late redelivery
//! is answered with its first deployment. An app's newest deployments, and those of releases that a
//! rollback can go back to, stay however old they are. The tip of each ref is kept for ever.

use std::time::Duration;

use super::{Result, Store, now};
use crate::ids;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long rows are kept: no forge can redeliver a delivery that is older.
const KEEP: Duration = DAY.saturating_mul(90);
/// How long the audit log is kept; at most the newest 200,000 entries of it.
const KEEP_ACTIONS: Duration = DAY.saturating_mul(400);
/// How many rows one transaction deletes; deliveries wait while it runs.
const BATCH: i64 = 200;
const PAUSE: Duration = Duration::from_millis(100);

/// A table to prune: the letter of the ids by which its rows are dated, the query for at most `?2`
/// rows older than the id `?1` that may be deleted, and the statements that delete one.
struct Table {
    kind: char,
    keep: Duration,
    old: &'static str,
    delete: &'static [&'static str],
}

// The order matters: the later queries depend on which deployments are left.
const TABLES: [Table; 5] = [
    Table {
        kind: 'd',
        keep: KEEP,
        // Each app keeps its newest hundred deployments. Of the deployments of one release, the one
        // that made it is deleted last.
        old: "SELECT d.rowid FROM
                (SELECT app, (SELECT id FROM deployments WHERE app = a.app
                              ORDER BY id DESC LIMIT 1 OFFSET 99) AS oldest
                 FROM (SELECT DISTINCT app FROM deployments) a) kept
              JOIN deployments d ON d.app = kept.app AND d.id < min(kept.oldest, ?1)
              LEFT JOIN releases r ON r.id = d.release
              WHERE d.ended_at IS NOT NULL AND (r.id IS NULL OR r.removed_at IS NOT NULL)
                AND NOT EXISTS (SELECT 1 FROM deployments WHERE release = d.release AND id > d.id)
              LIMIT ?2",
        delete: &[
            "DELETE FROM steps WHERE deployment = (SELECT id FROM deployments WHERE rowid = ?1)",
            "DELETE FROM jobs WHERE deployment = (SELECT id FROM deployments WHERE rowid = ?1)",
            "DELETE FROM releases WHERE deployment = (SELECT id FROM deployments WHERE rowid = ?1)",
            "DELETE FROM deployments WHERE rowid = ?1",
        ],
    },
    Table {
        kind: 'w',
        keep: KEEP,
        old: "SELECT rowid FROM pushes WHERE delivery < ?1
                AND NOT EXISTS (SELECT 1 FROM deployments WHERE id = deployment) LIMIT ?2",
        delete: &["DELETE FROM pushes WHERE rowid = ?1"],
    },
    Table {
        kind: 'w',
        keep: KEEP,
        old: "SELECT d.rowid FROM deliveries d WHERE d.id < ?1
                AND NOT EXISTS (SELECT 1 FROM deployments WHERE id = d.deployment) LIMIT ?2",
        delete: &["DELETE FROM deliveries WHERE rowid = ?1"],
    },
    Table {
        kind: 'm',
        keep: KEEP,
        old: "SELECT rowid FROM moved_refs WHERE id < ?1 LIMIT ?2",
        delete: &["DELETE FROM moved_refs WHERE rowid = ?1"],
    },
    Table {
        kind: 'x',
        keep: KEEP_ACTIONS,
        // No entry goes before the one before it.
        old: "SELECT rowid FROM actions
              WHERE seq <= (SELECT seq FROM action_chain) - 200000
                 OR seq < ifnull((SELECT seq FROM actions WHERE id >= ?1 ORDER BY seq LIMIT 1),
                                 (SELECT seq + 1 FROM action_chain))
              ORDER BY seq LIMIT ?2",
        delete: &[
            "UPDATE action_chain SET (gone_seq, gone_hash) =
                (SELECT seq, hash FROM actions WHERE rowid = ?1)",
            "DELETE FROM actions WHERE rowid = ?1",
        ],
    },
];

/// Deletes old rows of every table in small batches; returns how many it deleted, not counting the
/// steps, jobs and releases that are deleted with a deployment.
pub async fn prune(store: &Store) -> Result<i64> {
    let mut count = 0;
    for table in &TABLES {
        let before = ids::first_of(table.kind, now() - table.keep.as_millis() as i64);
        loop {
            let before = before.clone();
            let old = store.read(move |db| {
                let mut query = db.prepare_cached(table.old)?;
                let rows = query.query_map((before, BATCH), |row| row.get(0))?;
                Ok(rows.collect::<rusqlite::Result<Vec<i64>>>()?)
            });
            let old = old.await?;
            let found = old.len() as i64;
            let delete = store.write(move |db| {
                for row in old {
                    for sql in table.delete {
                        db.prepare_cached(sql)?.execute([row])?;
                    }
                }
                Ok(())
            });
            delete.await?;
            count += found;
            if found < BATCH {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use rusqlite::Connection;

    use super::*;
    use crate::principal::Requester;
    use crate::store::actions;

    /// The first id of the moment `days` days before the tests began.
    fn aged(kind: char, days: i64) -> String {
        static BEGAN: LazyLock<i64> = LazyLock::new(now);
        ids::first_of(kind, *BEGAN - days * 24 * 3600 * 1000)
    }

    /// A push `days` days ago that made the release from `made` days ago go live, and another
    /// delivery that led to nothing.
    fn push(db: &Connection, app: &str, days: i64, made: i64, more: &str) -> Result<()> {
        let (deployment, delivery) = (aged('d', days), aged('w', days));
        db.execute(
            "INSERT INTO deployments (id, app, trigger, want, state, release, created_at, ended_at)
             VALUES (?1, ?2, '', '', 'live', ?3, 0, iif(?4 = 'open', NULL, 1))",
            (&deployment, app, aged('r', made), more),
        )?;
        db.execute(
            "INSERT INTO steps (deployment, name, position, state, started_at)
             VALUES (?1, 'fetch', 0, 'done', 0)",
            [&deployment],
        )?;
        if made == days {
            db.execute(
                "INSERT INTO releases (id, app, deployment, commit_id, message, author, created_at,
                    removed_at)
                 VALUES (?1, ?2, ?3, '', '', '', 0, iif(?4 = 'kept', NULL, 1))",
                (aged('r', days), app, &deployment, more),
            )?;
        }
        let other = format!("{}1", &delivery[..13]);
        // Both are of the same millisecond.
        for (delivery, led_to) in [(&delivery, Some(&deployment)), (&other, None)] {
            db.execute(
                "INSERT INTO deliveries (id, app, forge, event, body_hash, received_at, deployment)
                 VALUES (?1, ?2, '', '', '', 0, ?3)",
                (delivery, app, led_to),
            )?;
        }
        db.execute(
            "INSERT INTO pushes (app, ref, delivery, deployment) VALUES (?1, '', ?2, ?3)",
            (app, &delivery, &deployment),
        )?;
        Ok(())
    }

    fn count(db: &Connection, what: &str) -> Result<i64> {
        let query = format!("SELECT count(*) FROM {what}");
        Ok(db.query_row(&query, [], |row| row.get(0))?)
    }

    #[tokio::test]
    async fn what_is_old_goes_and_what_may_be_asked_for_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let filled = store.write(|db| {
            push(db, "rare", 999, 999, "")?;
            for days in (1..=500).rev() {
                match days {
                    500 => push(db, "busy", days, days, "open")?,
                    400 => push(db, "busy", days, days, "kept")?,
                    // Rolled back to a release that was made long before.
                    100 => push(db, "busy", days, 300, "")?,
                    _ => push(db, "busy", days, days, "")?,
                }
            }
            Ok(())
        });
        filled.await.unwrap();
        // 397 deployments with a push and a delivery each, and the deliveries that led to nothing.
        assert_eq!(prune(&store).await.unwrap(), 3 * 397 + 412);
        let look = store.read(|db| {
            let mut query = db.prepare("SELECT id FROM deployments ORDER BY id")?;
            let rows = query.query_map([], |row| row.get(0))?;
            let left = rows.collect::<rusqlite::Result<Vec<String>>>()?;
            let old = |days| left.contains(&aged('d', days));
            assert_eq!(left.len(), 104);
            for days in [999, 500, 400, 300, 100, 1] {
                assert!(old(days), "{days}");
            }
            assert_eq!(count(db, "steps")?, 104);
            assert_eq!(count(db, "pushes")?, 104);
            assert_eq!(count(db, "deliveries WHERE deployment IS NOT NULL")?, 104);
            assert_eq!(count(db, "deliveries WHERE deployment IS NULL")?, 89);
            // The rollback made no release.
            assert_eq!(count(db, "releases")?, 103);
            Ok(())
        });
        look.await.unwrap();
        assert_eq!(prune(&store).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn the_audit_log_is_whole_without_its_oldest_entries() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let filled = store.write(|db| {
            for n in 0..500 {
                let (detail, by) = (serde_json::json!({ "n": n }), Requester::Agent);
                actions::insert(db, actions::Kind::Reload, None, &detail, &by)?;
            }
            Ok(())
        });
        filled.await.unwrap();
        assert_eq!(prune(&store).await.unwrap(), 0);
        // The newest number is what it would be after many more entries.
        let table = &TABLES[4];
        let gone = store.write(|db| {
            let mut oldest = db.prepare("SELECT rowid FROM actions ORDER BY seq LIMIT 300")?;
            let rows = oldest.query_map([], |row| row.get(0))?;
            for row in rows.collect::<rusqlite::Result<Vec<i64>>>()? {
                for sql in table.delete {
                    db.execute(sql, [row])?;
                }
            }
            actions::check(db)
        });
        let left = gone.await.unwrap();
        assert_eq!((left.count, left.newest.0, left.broken), (200, 500, None));
        let many = store.write(|db| {
            db.execute_batch("UPDATE action_chain SET seq = 200400")?;
            Ok(())
        });
        many.await.unwrap();
        assert_eq!(prune(&store).await.unwrap(), 100);
    }
}
