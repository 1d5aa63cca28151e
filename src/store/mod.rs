//! The state that must survive a crash: an SQLite database (WAL, synchronous=FULL) and the
//! deployment logs. Most tables have a module of their own.
//!
//! One thread owns the only writing connection. Writes that arrive together are committed together:
//! each runs in its own savepoint, one fsync covers all of them, and no caller is answered before
//! it.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

pub mod actions;
pub mod alarms;
pub mod app_names;
pub mod apps;
pub mod arrivals;
pub mod certificates;
pub mod changes;
pub mod crons;
pub mod deliveries;
pub mod deployments;
pub mod events;
mod examine;
#[cfg(test)]
pub mod fixture;
pub mod former_secrets;
pub mod given_up;
pub mod holds;
pub mod idempotency;
pub mod images;
pub mod instances;
pub mod jobs;
pub mod log;
mod migrations;
pub mod moved_refs;
pub mod named_volumes;
pub mod networks;
pub mod ours;
pub mod outages;
pub mod outbox;
pub mod overview;
pub mod pending_pushes;
pub mod provenance;
pub mod prune;
pub mod pushes;
pub mod releases;
pub mod results;
pub mod runs;
pub mod scales;
pub mod secrets;
pub mod services;
pub mod sessions;
pub mod settings;
pub mod statuses;
pub mod steps;
pub mod tokens;
pub mod traced;
pub mod unreached;
pub mod variables;
pub mod volumes;

pub use examine::examine;

/// The most writes that may wait for the writer.
const QUEUE: usize = 1024;
/// The most writes that share one commit.
const BATCH: usize = 256;

/// How many prepared statements each connection caches: more than the code contains.
const STATEMENTS: usize = 256;

/// Why a read or write failed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database reported an error: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the database's writer has stopped; restart the agent")]
    Stopped,
    #[error("failed to open the database `{path}`: {cause}")]
    Open { path: PathBuf, cause: String },
    #[error("failed to use the folder of the logs: {0}")]
    Logs(#[from] std::io::Error),
    /// Often because the disk is full.
    #[error("failed to commit to the database: {0}")]
    NotCommitted(String),
    /// The operation itself refused; the message is for the person who requested it.
    #[error("{0}")]
    Refused(String),
}

pub type Result<T> = std::result::Result<T, StoreError>;

/// A handle to the database; clones share it.
#[derive(Clone)]
pub struct Store {
    writes: mpsc::Sender<Write>,
    reads: mpsc::UnboundedSender<Read>,
    logs: Arc<Path>,
}

/// Runs inside the batch's transaction (`None` if it could not begin) and returns a callback that
/// takes the outcome of the commit.
type Write = Box<dyn FnOnce(Option<&Connection>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(std::result::Result<(), String>) + Send>;
type Read = Box<dyn FnOnce(&Connection) + Send>;

impl Store {
    /// Opens `data_dir/cutover.db`; creates and migrates it if necessary.
    pub fn open(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join("cutover.db");
        let failed = |cause: String| StoreError::Open {
            path: path.clone(),
            cause,
        };
        let logs = data_dir.join("logs");
        std::fs::create_dir_all(&logs).map_err(|e| failed(e.to_string()))?;
        let mut writer = Connection::open(&path).map_err(|e| failed(e.to_string()))?;
        prepare(&writer).map_err(|e| failed(e.to_string()))?;
        migrations::run(&mut writer).map_err(failed)?;
        let reader = Connection::open_with_flags(
            &path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        reader.busy_timeout(Duration::from_secs(5))?;
        keep_statements(&reader)?;
        let (writes, queue) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || or_abort(|| write_batches(&writer, queue)))
            .map_err(|e| failed(e.to_string()))?;
        // Unbounded, as the tasks are that read: where each waited for its place, one that is not polled
        // meanwhile would hold up all others.
        let (reads, queue) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("store-reads".into())
            .spawn(move || read_all(&reader, queue))
            .map_err(|e| failed(e.to_string()))?;
        Ok(Self {
            writes,
            reads,
            logs: logs.into(),
        })
    }

    /// Runs `write` in a transaction. On `Ok` the whole write is on disk; on `Err` no part of it is.
    pub async fn write<T, F>(&self, write: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Write = Box::new(move |db| {
            let written = db.map(|db| in_savepoint(db, write));
            Box::new(move |commit| {
                let outcome = commit.map_err(StoreError::NotCommitted);
                let _ =
                    answer.send(outcome.and_then(|()| written.unwrap_or(Err(StoreError::Stopped))));
            })
        });
        self.writes
            .send(job)
            .await
            .map_err(|_| StoreError::Stopped)?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }

    /// Runs `read` on committed data, off the async threads. All of its statements see the same moment, and
    /// SQLite takes its locks once for all of them.
    pub async fn read<T, F>(&self, read: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Read = Box::new(move |db| {
            if answer.is_closed() {
                // Whoever asked has gone.
                return;
            }
            let at_once = || {
                let moment = db.unchecked_transaction()?;
                read(&moment)
            };
            let _ = answer.send(at_once());
        });
        self.reads.send(job).map_err(|_| StoreError::Stopped)?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }

    /// The path of a deployment's log.
    pub fn log_path(&self, id: &crate::ids::DeploymentId) -> PathBuf {
        self.logs.join(format!("{id}.log"))
    }

    /// The path of the log of a scheduled command's runs.
    pub fn cron_log_path(
        &self,
        app: &crate::ids::AppName,
        name: &crate::ids::ServiceName,
    ) -> PathBuf {
        self.logs.join(format!("cron-{app}-{name}.log"))
    }

    /// Removes the oldest logs until the rest take at most 1 GiB; returns how many it removed.
    pub async fn remove_old_logs(&self) -> Result<usize> {
        let logs = self.logs.clone();
        let removed = tokio::task::spawn_blocking(move || log::remove_oldest(&logs));
        Ok(removed.await.map_err(|_| StoreError::Stopped)??)
    }
}

/// Runs one after another what is to be read. Whoever asked for what panics gets an error.
fn read_all(reader: &Connection, mut queue: mpsc::UnboundedReceiver<Read>) {
    while let Some(job) = queue.blocking_recv() {
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| job(reader)));
    }
}

fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(Duration::from_secs(5))?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", "ON")?;
    // The rollback data of savepoints stays in memory: it is never needed after a crash.
    db.pragma_update(None, "temp_store", "MEMORY")?;
    keep_statements(db)
}

/// Compiling a statement costs several times as much as running it, so each is compiled once.
fn keep_statements(db: &Connection) -> rusqlite::Result<()> {
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    // Otherwise SQLite recompiles many queries for each new value of their parameters, in the hope
    // of a better plan: <https://sqlite.org/queryplanner-ng.html#qpstab>.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Aborts the process if `work` panics: an agent that answers but stores nothing would look healthy,
/// and a restart also recovers the work that was in progress.
fn or_abort(work: impl FnOnce()) {
    let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(work)) else {
        return;
    };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("without a message");
    tracing::error!("the database's writer panicked ({text}); aborting the agent");
    std::process::abort();
}

fn write_batches(db: &Connection, mut queue: mpsc::Receiver<Write>) {
    while let Some(first) = queue.blocking_recv() {
        if let Err(error) = db.execute_batch("BEGIN IMMEDIATE") {
            first(None)(Err(error.to_string()));
            continue;
        }
        let mut answers = vec![first(Some(db))];
        // A full disk makes SQLite roll the whole transaction back. Later writes would then be
        // committed one by one, although their callers are told that they were not.
        while answers.len() < BATCH
            && !db.is_autocommit()
            && let Ok(next) = queue.try_recv()
        {
            answers.push(next(Some(db)));
        }
        let commit = db.execute_batch("COMMIT").map_err(|e| {
            let _ = db.execute_batch("ROLLBACK");
            e.to_string()
        });
        for answer in answers {
            answer(commit.clone());
        }
    }
}

fn in_savepoint<T>(db: &Connection, write: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    let run = |sql| db.prepare_cached(sql)?.execute([]);
    run("SAVEPOINT one")?;
    let outcome = write(db);
    if outcome.is_err() {
        run("ROLLBACK TO one")?;
    }
    run("RELEASE one")?;
    outcome
}

/// The current time in milliseconds since 1970 (UTC), the unit of every timestamp in the database.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as i64
}

/// Parses a column's text.
fn parsed<T>(row: &rusqlite::Row<'_>, column: impl rusqlite::RowIndex) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get_ref(column)?.as_str()?.parse().map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e))
    })
}

/// Parses a column's text, if it is not null.
fn maybe_parsed<T>(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<Option<T>>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    match row.get::<_, Option<String>>(column)? {
        None => Ok(None),
        Some(_) => parsed(row, column).map(Some),
    }
}

/// Parses a column that holds JSON, if it is not null.
fn json<T: serde::de::DeserializeOwned>(
    row: &rusqlite::Row<'_>,
    column: &str,
) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get::<_, Option<String>>(column)? else {
        return Ok(None);
    };
    serde_json::from_str(&text).map(Some).map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e))
    })
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| StoreError::Refused(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_write_leaves_nothing_and_spares_its_neighbours() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let insert = |key: &'static str, fail: bool| {
            store.write(move |db| {
                db.execute("INSERT INTO meta (key, value) VALUES (?1, '')", [key])?;
                if fail {
                    Err(StoreError::Refused("no".into()))
                } else {
                    Ok(())
                }
            })
        };
        let (a, b, c) = tokio::join!(insert("a", false), insert("b", true), insert("c", false));
        assert!(a.is_ok() && b.is_err() && c.is_ok());
        let keys: Vec<String> = store
            .read(|db| {
                let mut query = db.prepare("SELECT key FROM meta WHERE key IN ('a','b','c')")?;
                let rows = query.query_map([], |r| r.get(0))?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            })
            .await
            .unwrap();
        assert_eq!(keys, ["a", "c"]);
    }

    #[tokio::test]
    async fn what_is_not_committed_is_no_refusal_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let insert = || {
            store.write(|db| {
                let row = "INSERT INTO meta (key, value) VALUES ('a', '')";
                db.execute(row, []).map(drop).map_err(StoreError::from)
            })
        };
        // Its foreign key is checked only at the commit.
        let commit = store.write(|db| {
            db.pragma_update(None, "defer_foreign_keys", "ON")?;
            let row = "INSERT INTO steps VALUES ('none', 'fetch', 0, 'done', 0, NULL, NULL)";
            db.execute(row, []).map(drop).map_err(StoreError::from)
        });
        let (with_it, commit) = tokio::join!(insert(), commit);
        assert!(matches!(commit, Err(StoreError::NotCommitted(_))));
        // Another connection holds the write lock for longer than the busy timeout.
        let other = Connection::open(folder.path().join("cutover.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let begin = insert().await;
        assert!(matches!(begin, Err(StoreError::NotCommitted(_))));
        other.execute_batch("ROLLBACK").unwrap();
        // A write that shared the failed commit was not stored either.
        let again = insert().await;
        assert_eq!(again.is_err(), with_it.is_ok());
    }

    #[tokio::test]
    async fn who_is_not_polled_while_waiting_to_read_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let mut first = Box::pin(store.read(move |_| Ok(wait.recv().is_ok())));
        let mut idle = Box::pin(store.read(|_| Ok(())));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut idle).is_pending());
        go_on.send(()).unwrap();
        assert!(first.await.unwrap());
        let third = tokio::time::timeout(Duration::from_secs(20), store.read(|_| Ok(3)));
        assert_eq!(third.await.expect("nobody is in its way").unwrap(), 3);
        idle.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_told_that_it_is_not_stored_is_not_stored_on_a_full_disk_either() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (go, wait) = std::sync::mpsc::channel();
        let insert = |key: &'static str, bytes: usize| {
            store.write(move |db| {
                let row = "INSERT INTO meta (key, value) VALUES (?1, ?2)";
                db.execute(row, (key, "x".repeat(bytes)))?;
                Ok(())
            })
        };
        let first = store.write(move |db| {
            // By now the other writes are queued, so they share this one's commit.
            let _ = wait.recv();
            let pages: i64 = db.pragma_query_value(None, "page_count", |r| r.get(0))?;
            db.pragma_update_and_check(None, "max_page_count", pages + 2, |_| Ok(()))?;
            Ok(())
        });
        let (first, a, full, c, ()) = tokio::join!(
            first,
            insert("a", 1),
            insert("full", 1 << 20),
            insert("c", 1),
            async {
                go.send(()).unwrap();
            }
        );
        assert!(first.is_err() && a.is_err() && full.is_err());
        let stored = |key: &'static str| {
            store.read(move |db| {
                Ok(db
                    .prepare("SELECT 1 FROM meta WHERE key = ?1")?
                    .exists([key])?)
            })
        };
        assert!(!stored("a").await.unwrap());
        assert_eq!(stored("c").await.unwrap(), c.is_ok());
    }

    #[test]
    fn a_statement_is_compiled_once_whatever_its_parameters() {
        let mut db = Connection::open_in_memory().unwrap();
        prepare(&db).unwrap();
        migrations::run(&mut db).unwrap();
        let sql = "SELECT id FROM deliveries
                   WHERE app = ?1 AND body_hash = ?2 AND deployment IS NOT NULL ORDER BY id LIMIT 1";
        for body in ["a", "b", "c", "d"] {
            let mut query = db.prepare_cached(sql).unwrap();
            assert!(!query.exists(("hello", body)).unwrap());
        }
        let query = db.prepare_cached(sql).unwrap();
        let again = query.get_status(rusqlite::StatementStatus::RePrepare);
        assert_eq!(again, 0);
    }

    /// Runs this test again in a child process, which may abort.
    #[test]
    fn a_panic_in_a_write_ends_the_process() {
        const FOLDER: &str = "CUTOVER_TEST_FOLDER";
        if let Some(folder) = std::env::var_os(FOLDER) {
            tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .init();
            let store = Store::open(Path::new(&folder)).unwrap();
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let _: Result<()> = runtime.block_on(store.write(|_| panic!("no such row")));
            // The panic drops the write before the process aborts, so wait for the abort.
            std::thread::sleep(Duration::from_secs(30));
            std::process::exit(0);
        }
        let folder = tempfile::tempdir().unwrap();
        let name = "store::tests::a_panic_in_a_write_ends_the_process";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&child.stderr);
        let signal = std::os::unix::process::ExitStatusExt::signal(&child.status);
        assert_eq!(signal, Some(6), "{log}");
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains("no such row"), "{log}");
    }

    /// Compares SQLite's own step counts, which do not depend on how busy the machine is.
    #[test]
    fn one_more_delivery_that_led_to_nothing_costs_the_same_after_thousands() {
        let mut db = Connection::open_in_memory().unwrap();
        prepare(&db).unwrap();
        migrations::run(&mut db).unwrap();
        let delivery = deliveries::NewDelivery {
            app: "hello".parse().unwrap(),
            forge: "github".into(),
            forge_delivery: None,
            event: "push".into(),
            body_hash: "the same".into(),
            moves: vec![],
        };
        let deliver = || {
            assert!(deliveries::earlier(&db, &delivery).unwrap().is_none());
            deliveries::insert(&db, &delivery, None, None).unwrap();
        };
        let steps = || {
            let before = deliveries::steps_of_earlier(&db);
            deliver();
            deliveries::steps_of_earlier(&db) - before
        };
        deliver();
        let first = steps();
        (0..2000).for_each(|_| deliver());
        let last = steps();
        assert_eq!(first, last);
    }

    #[test]
    fn a_database_of_a_newer_version_is_refused_not_reset() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path()).unwrap());
        let db = Connection::open(folder.path().join("cutover.db")).unwrap();
        db.pragma_update(None, "user_version", 9999).unwrap();
        drop(db);
        let error = Store::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("newer"), "{error}");
    }
}
