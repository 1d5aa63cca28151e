//! Jobs: containers that end by themselves. A row is written before its container is made, so that
//! every sweep knows the container; the row stays after the job ends, with its exit code.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row};

use super::ours::{Ours, mark};
use super::{Result, StoreError, json, maybe_parsed, now, parsed, to_json};
use crate::config::Command;
use crate::ids::{AppName, DeploymentId, ReleaseId, ServiceName};
use crate::principal::Requester;

/// How many ended runs of a schedule are kept.
const KEPT: i64 = 50;

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// The app's tests, in the new image.
    Test,
    /// The release command, in the new image.
    Release,
    /// A scheduled command, in the live image.
    Cron,
    /// A person's command, in the live image.
    Run,
}

impl JobKind {
    const ALL: [JobKind; 4] = [JobKind::Test, JobKind::Release, JobKind::Cron, JobKind::Run];

    pub fn as_str(self) -> &'static str {
        match self {
            JobKind::Test => "test",
            JobKind::Release => "release",
            JobKind::Cron => "cron",
            JobKind::Run => "run",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The container's name.
    pub name: String,
    pub app: AppName,
    pub release: ReleaseId,
    pub kind: JobKind,
    /// The deployment that it is a step of, if any.
    pub deployment: Option<DeploymentId>,
    pub started_at: i64,
    pub ended_at: Option<i64>,
    /// `None` while it runs, and if its exit code is not known.
    pub exit_code: Option<i64>,
    /// See [`Ours::mark`].
    pub mark: Option<String>,
    /// What it is a run of.
    pub cron: Option<Cron>,
    /// Whether its container was made: if that is missing, it was removed.
    pub made: bool,
    /// Why it ended, or did not take place, where the exit code does not say it.
    pub outcome: Option<String>,
    /// Its last lines, once it has ended.
    pub log_tail: Vec<String>,
}

/// What a run of a schedule needs to be gone on with by another agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    pub name: ServiceName,
    /// `None`: a person asked for it.
    pub due_at: Option<i64>,
    pub command: Command,
    pub timeout: Duration,
    pub requested_by: Option<Requester>,
}

impl Job {
    /// A job whose container is about to be made.
    pub fn new(
        name: String,
        app: AppName,
        release: ReleaseId,
        kind: JobKind,
        deployment: Option<DeploymentId>,
    ) -> Self {
        Self {
            name,
            app,
            release,
            kind,
            deployment,
            started_at: now(),
            ended_at: None,
            exit_code: None,
            mark: Some(mark()),
            cron: None,
            made: false,
            outcome: None,
            log_tail: Vec::new(),
        }
    }

    pub fn ours(&self) -> Ours {
        Ours {
            name: self.name.clone(),
            mark: self.mark.clone(),
        }
    }
}

/// Records a job before its container is made; replaces the row of an interrupted attempt.
pub fn insert(db: &Connection, job: &Job) -> Result<()> {
    let mut upsert = db.prepare_cached(
        "INSERT OR REPLACE INTO jobs
            (name, app, release, kind, deployment, started_at, mark, cron, due_at, command,
             timeout_ms, requested_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    let cron = job.cron.as_ref();
    let by = cron.and_then(|it| it.requested_by.as_ref());
    upsert.execute((
        &job.name,
        job.app.as_str(),
        job.release.as_str(),
        job.kind.as_str(),
        job.deployment.as_ref().map(DeploymentId::as_str),
        job.started_at,
        &job.mark,
        cron.map(|it| it.name.as_str()),
        cron.and_then(|it| it.due_at),
        cron.map(|it| to_json(&it.command)).transpose()?,
        cron.map(|it| it.timeout.as_millis() as i64),
        by.map(to_json).transpose()?,
    ))?;
    Ok(())
}

/// Records that the container was made. It is started after that.
pub fn set_made(db: &Connection, name: &str) -> Result<()> {
    db.execute("UPDATE jobs SET made = 1 WHERE name = ?1", [name])?;
    Ok(())
}

/// Records why a job is ended before its time; only the first reason counts.
pub fn set_outcome(db: &Connection, name: &str, outcome: &str) -> Result<()> {
    let sql = "UPDATE jobs SET outcome = coalesce(outcome, ?2) WHERE name = ?1";
    db.execute(sql, (name, outcome))?;
    Ok(())
}

/// Records that a job has ended and its container is gone; only the first call counts.
pub fn ended(db: &Connection, name: &str, exit_code: Option<i64>) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE jobs SET ended_at = ?2, exit_code = ?3 WHERE name = ?1 AND ended_at IS NULL",
    )?;
    update.execute((name, now(), exit_code))?;
    Ok(())
}

/// The same with its last lines, before its container is removed. The oldest runs of its schedule are
/// forgotten.
pub fn ended_with(
    db: &Connection,
    job: &Job,
    exit_code: Option<i64>,
    outcome: Option<&str>,
    log_tail: &[String],
) -> Result<()> {
    if let Some(outcome) = outcome {
        set_outcome(db, &job.name, outcome)?;
    }
    let sql = "UPDATE jobs SET log_tail = ?2 WHERE name = ?1 AND ended_at IS NULL";
    db.execute(sql, (&job.name, to_json(&log_tail)?))?;
    ended(db, &job.name, exit_code)?;
    if let Some(cron) = &job.cron {
        let mut forget = db.prepare_cached(
            "DELETE FROM jobs WHERE app = ?1 AND cron = ?2 AND ended_at IS NOT NULL AND name NOT IN (
                SELECT name FROM jobs WHERE app = ?1 AND cron = ?2
                ORDER BY started_at DESC, name DESC LIMIT ?3)",
        )?;
        forget.execute((job.app.as_str(), cron.name.as_str(), KEPT))?;
    }
    Ok(())
}

/// Forgets a job whose container is gone.
pub fn delete(db: &Connection, name: &str) -> Result<()> {
    db.execute("DELETE FROM jobs WHERE name = ?1", [name])?;
    Ok(())
}

pub fn get(db: &Connection, name: &str) -> Result<Option<Job>> {
    let mut query = db.prepare_cached("SELECT * FROM jobs WHERE name = ?1")?;
    let mut rows = query.query_map([name], from_row)?;
    Ok(rows.next().transpose()?)
}

/// The jobs of this kind of a deployment that have not ended.
pub fn open_of(db: &Connection, deployment: &DeploymentId, kind: JobKind) -> Result<Vec<Job>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM jobs WHERE deployment = ?1 AND kind = ?2 AND ended_at IS NULL",
    )?;
    let rows = query.query_map((deployment.as_str(), kind.as_str()), from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The jobs of this kind that have not ended; the oldest first.
pub fn open(db: &Connection, kind: JobKind) -> Result<Vec<Job>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM jobs WHERE kind = ?1 AND ended_at IS NULL ORDER BY started_at, name",
    )?;
    let rows = query.query_map([kind.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The jobs of an app that have not ended.
pub fn open_of_app(db: &Connection, app: &AppName) -> Result<Vec<Job>> {
    let mut query = db.prepare_cached("SELECT * FROM jobs WHERE app = ?1 AND ended_at IS NULL")?;
    let rows = query.query_map([app.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Which runs of a schedule are wanted.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// Only those before the run with this name.
    pub before: Option<String>,
    /// Only those begun then or later, in milliseconds since 1970.
    pub since: Option<i64>,
}

/// The runs of a schedule, newest first.
pub fn of_cron(
    db: &Connection,
    app: &AppName,
    cron: &ServiceName,
    part: &Part,
    limit: usize,
) -> Result<Vec<Job>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM jobs WHERE app = ?1 AND cron = ?2 AND started_at >= ?5
           AND (?4 IS NULL
                OR (started_at, name) < (SELECT started_at, name FROM jobs WHERE name = ?4))
         ORDER BY started_at DESC, name DESC LIMIT ?3",
    )?;
    let (before, since) = (part.before.as_deref(), part.since.unwrap_or(i64::MIN));
    let rows = query.query_map(
        (app.as_str(), cron.as_str(), limit as i64, before, since),
        from_row,
    )?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The newest run of a schedule that was not skipped, or else the newest.
pub fn last_of_cron(db: &Connection, app: &AppName, cron: &ServiceName) -> Result<Option<Job>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM jobs WHERE app = ?1 AND cron = ?2
         ORDER BY coalesce(outcome, '') LIKE 'skipped%', started_at DESC, name DESC LIMIT 1",
    )?;
    let found = query.query_row((app.as_str(), cron.as_str()), from_row);
    Ok(found.optional()?)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Job> {
    let kind: String = row.get("kind")?;
    let named = JobKind::ALL.into_iter().find(|it| it.as_str() == kind);
    let unknown = || {
        let error = StoreError::Refused(format!("`{kind}` is not a kind of job"));
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    };
    let cron = match (maybe_parsed(row, "cron")?, json(row, "command")?) {
        (Some(name), Some(command)) => Some(Cron {
            name,
            command,
            due_at: row.get("due_at")?,
            timeout: Duration::from_millis(row.get::<_, i64>("timeout_ms")?.max(0) as u64),
            requested_by: json(row, "requested_by")?,
        }),
        _ => None,
    };
    Ok(Job {
        name: row.get("name")?,
        app: parsed(row, "app")?,
        release: parsed(row, "release")?,
        kind: named.ok_or_else(unknown)?,
        deployment: maybe_parsed(row, "deployment")?,
        started_at: row.get("started_at")?,
        ended_at: row.get("ended_at")?,
        exit_code: row.get("exit_code")?,
        mark: row.get("mark")?,
        cron,
        made: row.get("made")?,
        outcome: row.get("outcome")?,
        log_tail: json(row, "log_tail")?.unwrap_or_default(),
    })
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn a_job_is_open_until_it_ends_and_its_first_end_counts() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let deployment = DeploymentId::new();
            let job = Job::new(
                "cutover-hello-release".into(),
                "hello".parse().unwrap(),
                ReleaseId::new(),
                JobKind::Release,
                Some(deployment.clone()),
            );
            insert(db, &job)?;
            assert_eq!(get(db, &job.name)?, Some(job.clone()));
            assert_eq!(open_of(db, &deployment, JobKind::Release)?.len(), 1);
            assert_eq!(open_of(db, &deployment, JobKind::Test)?, []);

            ended(db, &job.name, Some(3))?;
            ended(db, &job.name, None)?;
            assert_eq!(get(db, &job.name)?.unwrap().exit_code, Some(3));
            assert_eq!(open_of(db, &deployment, JobKind::Release)?, []);

            // The job runs again after the agent was interrupted.
            insert(db, &job)?;
            assert_eq!(open_of(db, &deployment, JobKind::Release)?, [job]);
            Ok(())
        });
        write.await.unwrap();
    }
}
