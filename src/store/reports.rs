//! The outbox to the forges: a row for each commit status and each of a forge's own deployments. A
//! row says what is true now, not what happened: it changes in the transaction in which the
//! deployment's state does, and what was overtaken before it could be sent is never sent.

use rusqlite::{Connection, OptionalExtension, Row};

use super::{Result, now, parsed};
use crate::deploy::state::State;
use crate::ids::{AppName, CommitId, DeploymentId};
use crate::report::{Kind, Phase};

/// What a forge is to be told, and how far that came.
#[derive(Debug, Clone)]
pub struct Report {
    pub kind: Kind,
    pub app: AppName,
    pub commit: CommitId,
    /// The deployment that it speaks of.
    pub deployment: DeploymentId,
    pub phase: Phase,
    /// Rises with each change of deployment or phase.
    pub revision: i64,
    /// The last revision that the forge has, or has refused for good.
    pub told: i64,
    /// When this revision came to be.
    pub since: i64,
    /// When it is to be sent.
    pub due_at: i64,
    /// How often in a row sending it failed.
    pub attempts: u32,
    /// Whether the forge may have been asked already to make its own deployment.
    pub asked: bool,
    /// The forge's id of its own deployment.
    pub forge_id: Option<String>,
    /// Why it could not be told, last.
    pub error: Option<String>,
}

impl Report {
    pub fn is_waiting(&self) -> bool {
        self.told < self.revision
    }

    /// What the row is about: of statuses each commit of an app has one, of the forge's deployments
    /// each of ours has one.
    fn subject(&self) -> &str {
        match self.kind {
            Kind::Status => self.app.as_str(),
            Kind::Deployment => self.deployment.as_str(),
        }
    }
}

/// Says which apps tell a forge: each with whether the forge's own deployments are wanted too. What
/// waits for any other app is dropped.
pub fn set_reporting(db: &Connection, apps: &[(AppName, bool)]) -> Result<()> {
    db.execute("DELETE FROM reporting", [])?;
    for (app, deployments) in apps {
        let insert = "INSERT INTO reporting (app, deployments) VALUES (?1, ?2)";
        db.execute(insert, (app.as_str(), deployments))?;
    }
    db.execute(
        "DELETE FROM reports WHERE told < revision AND NOT EXISTS
            (SELECT 1 FROM reporting r WHERE r.app = reports.app
             AND (reports.kind = 'status' OR r.deployments))",
        [],
    )?;
    Ok(())
}

/// Takes down what is now true of a deployment. Called wherever its state or commit changes.
pub(super) fn changed(db: &Connection, id: &DeploymentId) -> Result<()> {
    let mut query = db.prepare_cached(
        "SELECT d.app, d.commit_id, d.state, r.deployments FROM deployments d
         JOIN reporting r ON r.app = d.app WHERE d.id = ?1 AND d.commit_id IS NOT NULL",
    )?;
    let found = query.query_row([id.as_str()], |row| {
        Ok((
            parsed::<AppName>(row, "app")?,
            parsed::<CommitId>(row, "commit_id")?,
            parsed::<State>(row, "state")?,
            row.get("deployments")?,
        ))
    });
    let Some((app, commit, state, deployments)) = found.optional()? else {
        return Ok(());
    };
    if deployments {
        set(db, Kind::Deployment, &app, &commit, id, state.into())?;
        if state == State::Live {
            replace(db, &app, id)?;
        }
    }
    if let Some((speaker, state)) = speaker(db, &app, &commit)? {
        set(db, Kind::Status, &app, &commit, &speaker, state.into())?;
    }
    Ok(())
}

/// Takes down that a deployment will not deploy `commit` after all, but another one.
pub(super) fn left(db: &Connection, id: &DeploymentId, commit: &CommitId) -> Result<()> {
    let mut query = db
        .prepare_cached("SELECT kind, app FROM reports WHERE commit_id = ?2 AND deployment = ?1")?;
    let rows = query.query_map((id.as_str(), commit.as_str()), |row| {
        Ok((parsed::<Kind>(row, "kind")?, parsed::<AppName>(row, "app")?))
    })?;
    for row in rows.collect::<rusqlite::Result<Vec<_>>>()? {
        let (kind, app) = row;
        match (kind, speaker(db, &app, commit)?) {
            (Kind::Status, Some((other, state))) => {
                set(db, kind, &app, commit, &other, state.into())?;
            }
            _ => set(db, kind, &app, commit, id, Phase::Superseded)?,
        }
    }
    Ok(())
}

/// Whose state is the commit's: the newest deployment of it, but one that came to nothing only where
/// there is no other.
fn speaker(
    db: &Connection,
    app: &AppName,
    commit: &CommitId,
) -> Result<Option<(DeploymentId, State)>> {
    let mut query = db.prepare_cached(
        "SELECT id, state FROM deployments WHERE app = ?1 AND commit_id = ?2
         ORDER BY state IN ('superseded', 'cancelled'), id DESC LIMIT 1",
    )?;
    let found = query.query_row((app.as_str(), commit.as_str()), |row| {
        Ok((parsed(row, "id")?, parsed(row, "state")?))
    });
    Ok(found.optional()?)
}

/// The deployments of `app` that were live before `id` are so no longer.
fn replace(db: &Connection, app: &AppName, id: &DeploymentId) -> Result<()> {
    db.prepare_cached(
        "UPDATE reports SET phase = 'replaced', revision = revision + 1, since = ?3,
            due_at = CASE WHEN told < revision AND attempts > 0 THEN due_at ELSE ?3 END
         WHERE kind = 'deployment' AND app = ?1 AND phase = 'live' AND deployment <> ?2",
    )?
    .execute((app.as_str(), id.as_str(), now()))?;
    Ok(())
}

fn set(
    db: &Connection,
    kind: Kind,
    app: &AppName,
    commit: &CommitId,
    id: &DeploymentId,
    phase: Phase,
) -> Result<()> {
    // One that was interrupted and waits to run again is still under way to the forge. A change does
    // not cut short the wait for a forge that does not answer.
    let mut upsert = db.prepare_cached(
        "INSERT INTO reports
            (kind, subject, commit_id, app, deployment, phase, revision, since, due_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, ?7)
         ON CONFLICT (kind, subject, commit_id) DO UPDATE SET
            deployment = ?5, phase = ?6, revision = revision + 1, since = ?7,
            due_at = CASE WHEN told < revision AND attempts > 0 THEN due_at ELSE ?7 END
         WHERE (deployment <> ?5 OR phase <> ?6)
            AND NOT (deployment = ?5 AND phase = 'running' AND ?6 = 'queued')",
    )?;
    let subject = match kind {
        Kind::Status => app.as_str(),
        Kind::Deployment => id.as_str(),
    };
    upsert.execute((
        kind.as_str(),
        subject,
        commit.as_str(),
        app.as_str(),
        id.as_str(),
        phase.as_str(),
        now(),
    ))?;
    Ok(())
}

/// Of each app that has something to tell, what is due first.
pub fn waiting(db: &Connection) -> Result<Vec<Report>> {
    let mut query = db.prepare_cached(
        // Of the other columns SQLite takes the row of the minimum.
        "SELECT *, min(due_at) FROM reports WHERE told < revision GROUP BY app",
    )?;
    let rows = query.query_map([], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// What is told of a deployment.
pub fn of(db: &Connection, id: &DeploymentId) -> Result<Vec<Report>> {
    let mut query =
        db.prepare_cached("SELECT * FROM reports WHERE deployment = ?1 ORDER BY kind DESC, since")?;
    let rows = query.query_map([id.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The forge has the revision that was read as `report`. A later one is due at once.
pub fn set_told(db: &Connection, report: &Report) -> Result<()> {
    settle(db, report, None)
}

/// The forge will never take the revision that was read as `report`; the sentence says why.
pub fn set_refused(db: &Connection, report: &Report, why: &str) -> Result<()> {
    settle(db, report, Some(why))
}

fn settle(db: &Connection, report: &Report, error: Option<&str>) -> Result<()> {
    db.prepare_cached(
        "UPDATE reports SET told = ?4, error = ?5, attempts = 0, due_at = ?6
         WHERE kind = ?1 AND subject = ?2 AND commit_id = ?3",
    )?
    .execute((
        report.kind.as_str(),
        report.subject(),
        report.commit.as_str(),
        report.revision,
        error,
        now(),
    ))?;
    Ok(())
}

/// It could not be sent, and is due again later.
pub fn set_later(db: &Connection, report: &Report, due_at: i64, why: &str) -> Result<()> {
    db.prepare_cached(
        "UPDATE reports SET attempts = attempts + 1, due_at = ?4, error = ?5
         WHERE kind = ?1 AND subject = ?2 AND commit_id = ?3",
    )?
    .execute((
        report.kind.as_str(),
        report.subject(),
        report.commit.as_str(),
        due_at,
        why,
    ))?;
    Ok(())
}

/// Nothing of the app is due before that: the forge asked for a pause.
pub fn hold(db: &Connection, app: &AppName, until: i64) -> Result<()> {
    db.execute(
        "UPDATE reports SET due_at = max(due_at, ?2) WHERE app = ?1 AND told < revision",
        (app.as_str(), until),
    )?;
    Ok(())
}

/// The forge is about to be asked for its own deployment.
pub fn set_asked(db: &Connection, report: &Report) -> Result<()> {
    let update = "UPDATE reports SET asked = 1
                  WHERE kind = 'deployment' AND subject = ?1 AND commit_id = ?2";
    db.execute(update, (report.subject(), report.commit.as_str()))?;
    Ok(())
}

pub fn set_forge_id(db: &Connection, report: &Report, forge_id: &str) -> Result<()> {
    let update = "UPDATE reports SET forge_id = ?3
                  WHERE kind = 'deployment' AND subject = ?1 AND commit_id = ?2";
    db.execute(update, (report.subject(), report.commit.as_str(), forge_id))?;
    Ok(())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Report> {
    Ok(Report {
        kind: parsed(row, "kind")?,
        app: parsed(row, "app")?,
        commit: parsed(row, "commit_id")?,
        deployment: parsed(row, "deployment")?,
        phase: parsed(row, "phase")?,
        revision: row.get("revision")?,
        told: row.get("told")?,
        since: row.get("since")?,
        due_at: row.get("due_at")?,
        attempts: row.get("attempts")?,
        asked: row.get("asked")?,
        forge_id: row.get("forge_id")?,
        error: row.get("error")?,
    })
}
