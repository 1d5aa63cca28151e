//! Jobs: containers that end by themselves. A row is written before its container is made, so that
//! every sweep knows the container; the row stays after the job ends, with its exit code.

use rusqlite::{Connection, Row};

use super::ours::{Ours, mark};
use super::{Result, StoreError, maybe_parsed, now, parsed};
use crate::ids::{AppName, DeploymentId, ReleaseId};

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// The app's tests, in the new image.
    Test,
    /// The release command, in the new image.
    Release,
}

impl JobKind {
    const ALL: [JobKind; 2] = [JobKind::Test, JobKind::Release];

    pub fn as_str(self) -> &'static str {
        match self {
            JobKind::Test => "test",
            JobKind::Release => "release",
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
        "INSERT OR REPLACE INTO jobs (name, app, release, kind, deployment, started_at, mark)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    upsert.execute((
        &job.name,
        job.app.as_str(),
        job.release.as_str(),
        job.kind.as_str(),
        job.deployment.as_ref().map(DeploymentId::as_str),
        job.started_at,
        &job.mark,
    ))?;
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

fn from_row(row: &Row<'_>) -> rusqlite::Result<Job> {
    let kind: String = row.get("kind")?;
    let named = JobKind::ALL.into_iter().find(|it| it.as_str() == kind);
    let unknown = || {
        let error = StoreError::Refused(format!("`{kind}` is not a kind of job"));
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
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
