//! Records the current status of a deployment, in the transaction that changes its state or commit.

use rusqlite::{Connection, OptionalExtension};

use super::{StatusKind, StatusPhase, tell};
use crate::ids::{AppName, CommitId, DeploymentId};
use crate::state::State;
use crate::store::{Result, now, parsed};

/// Records the current status of a deployment. Called wherever its state or commit changes.
pub(in crate::store) fn changed(db: &Connection, id: &DeploymentId) -> Result<()> {
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
        set(db, StatusKind::Deployment, &app, &commit, id, state.into())?;
        if state == State::Live {
            replace(db, &app, id)?;
        }
    }
    if let Some((speaker, state)) = speaker(db, &app, &commit)? {
        let phase = of_commit(db, &speaker, state)?;
        set(db, StatusKind::Commit, &app, &commit, &speaker, phase)?;
    }
    Ok(())
}

/// Records that a deployment will deploy another commit instead of `commit`.
pub(in crate::store) fn left(db: &Connection, id: &DeploymentId, commit: &CommitId) -> Result<()> {
    let mut query = db.prepare_cached(
        "SELECT kind, app FROM statuses WHERE commit_id = ?2 AND deployment = ?1",
    )?;
    let rows = query.query_map((id.as_str(), commit.as_str()), |row| {
        Ok((
            parsed::<StatusKind>(row, "kind")?,
            parsed::<AppName>(row, "app")?,
        ))
    })?;
    for row in rows.collect::<rusqlite::Result<Vec<_>>>()? {
        let (kind, app) = row;
        match (kind, speaker(db, &app, commit)?) {
            (StatusKind::Commit, Some((other, state))) => {
                let phase = of_commit(db, &other, state)?;
                set(db, kind, &app, commit, &other, phase)?;
            }
            _ => set(db, kind, &app, commit, id, StatusPhase::Superseded)?,
        }
    }
    Ok(())
}

/// What is reported of a commit whose deployment `id` is in `state`.
fn of_commit(db: &Connection, id: &DeploymentId, state: State) -> Result<StatusPhase> {
    Ok(match state == State::Live && is_crashing(db, id)? {
        true => StatusPhase::Crashing,
        false => state.into(),
    })
}

/// Whether the release that this deployment made live crashes.
fn is_crashing(db: &Connection, deployment: &DeploymentId) -> Result<bool> {
    let mut query = db.prepare_cached("SELECT 1 FROM outages WHERE deployment = ?1")?;
    Ok(query.exists([deployment.as_str()])?)
}

/// The deployment whose state is reported as the commit's: the newest that was not superseded,
/// skipped or cancelled, or if there is none, the newest.
fn speaker(
    db: &Connection,
    app: &AppName,
    commit: &CommitId,
) -> Result<Option<(DeploymentId, State)>> {
    let mut query = db.prepare_cached(
        "SELECT id, state FROM deployments WHERE app = ?1 AND commit_id = ?2
         ORDER BY state IN ('superseded', 'skipped', 'cancelled'), id DESC LIMIT 1",
    )?;
    let found = query.query_row((app.as_str(), commit.as_str()), |row| {
        Ok((parsed(row, "id")?, parsed(row, "state")?))
    });
    Ok(found.optional()?)
}

/// Marks the deployments of `app` that were live before `id` as replaced.
fn replace(db: &Connection, app: &AppName, id: &DeploymentId) -> Result<()> {
    let mut update = db.prepare_cached(
        "UPDATE statuses SET phase = 'replaced', told = 0, since = ?3
         WHERE kind = 'deployment' AND app = ?1 AND phase = 'live' AND deployment <> ?2
         RETURNING deployment, commit_id",
    )?;
    let rows = update.query_map((app.as_str(), id.as_str(), now()), |row| {
        Ok((parsed(row, "deployment")?, parsed(row, "commit_id")?))
    })?;
    for row in rows.collect::<rusqlite::Result<Vec<_>>>()? {
        let (deployment, commit) = row;
        tell(db, StatusKind::Deployment, app, deployment, commit)?;
    }
    Ok(())
}

fn set(
    db: &Connection,
    kind: StatusKind,
    app: &AppName,
    commit: &CommitId,
    id: &DeploymentId,
    phase: StatusPhase,
) -> Result<()> {
    // For the forge, an interrupted deployment that waits to run again is still running.
    let mut upsert = db.prepare_cached(
        "INSERT INTO statuses (kind, subject, commit_id, app, deployment, phase, since)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (kind, subject, commit_id) DO UPDATE SET
            deployment = ?5, phase = ?6, told = 0, since = ?7
         WHERE (deployment <> ?5 OR phase <> ?6)
            AND NOT (deployment = ?5 AND phase = 'running' AND ?6 = 'queued')",
    )?;
    let subject = match kind {
        StatusKind::Commit => app.as_str(),
        StatusKind::Deployment => id.as_str(),
    };
    let changed = upsert.execute((
        kind.as_str(),
        subject,
        commit.as_str(),
        app.as_str(),
        id.as_str(),
        phase.as_str(),
        now(),
    ))?;
    match changed {
        0 => Ok(()),
        _ => tell(db, kind, app, id.clone(), commit.clone()),
    }
}
