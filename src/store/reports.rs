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

/// Says at the agent's start which apps tell a forge: each with whether the forge's own deployments
/// are wanted too. What waits for any other app is dropped; the rest is due at once, since whoever
/// restarts the agent may have mended what kept it.
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
    let update = "UPDATE reports SET due_at = ?1, attempts = 0 WHERE told < revision";
    db.execute(update, [now()])?;
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
            due_at = max(due_at, ?3)
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
            due_at = max(due_at, ?7)
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

/// How often sending one may fail before later ones of its app are sent ahead of it.
const PATIENCE: u32 = 5;

/// What may be sent next: of each app the status that is due first, and the waiting deployment that
/// is oldest, due or not, since forges show the deployment that was made last first. One that failed
/// too often holds up no other; those are sent when they are due.
pub fn waiting(db: &Connection) -> Result<Vec<Report>> {
    let mut query = db.prepare_cached(
        // Of the other columns SQLite takes the row of the minimum.
        "SELECT *, min(due_at) FROM reports
         WHERE told < revision AND (kind = 'status' OR attempts >= ?1) GROUP BY app, kind
         UNION ALL
         SELECT *, min(deployment) FROM reports
         WHERE told < revision AND kind = 'deployment' AND attempts < ?1 GROUP BY app
         ORDER BY due_at",
    )?;
    let rows = query.query_map([PATIENCE], from_row)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::state::{Event, Step};
    use crate::store::Store;
    use crate::store::deployments::{self, NewDeployment, Trigger, Want};

    fn commit(digit: char) -> CommitId {
        digit.to_string().repeat(40).parse().unwrap()
    }

    fn queue(db: &Connection, commit: &CommitId) -> DeploymentId {
        // Ids of one millisecond sort by chance.
        std::thread::sleep(std::time::Duration::from_millis(2));
        let new = NewDeployment {
            app: "hello".parse().unwrap(),
            trigger: Trigger::Webhook,
            want: Want::Pushed(commit.clone()),
            git_ref: None,
            commit: Some(commit.clone()),
            message: None,
            author: None,
            no_cache: false,
        };
        deployments::enqueue(db, &new).unwrap().id
    }

    fn begin(db: &Connection, id: &DeploymentId, steps: &[Step]) {
        for step in steps {
            deployments::apply(db, id, Event::Begin(*step)).unwrap();
        }
    }

    fn go_live(db: &Connection, id: &DeploymentId) {
        begin(
            db,
            id,
            &[Step::Start, Step::Probe, Step::Switch, Step::Drain],
        );
        deployments::end(db, id, Event::Finish, None).unwrap();
    }

    /// What the forge is told of the commit, and by whom.
    fn status(db: &Connection, commit: &CommitId) -> (DeploymentId, Phase) {
        let sql = "SELECT * FROM reports WHERE kind = 'status' AND commit_id = ?1";
        let report = db.query_row(sql, [commit.as_str()], from_row).unwrap();
        (report.deployment, report.phase)
    }

    fn own(db: &Connection, id: &DeploymentId) -> Vec<(CommitId, Phase)> {
        let all = of(db, id).unwrap().into_iter();
        let own = all.filter(|report| report.kind == Kind::Deployment);
        own.map(|report| (report.commit, report.phase)).collect()
    }

    /// Runs a test in the writer's own transaction.
    async fn on(test: impl FnOnce(&Connection) + Send + 'static) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let outcome = store.write(move |db| {
            set_reporting(db, &[("hello".parse().unwrap(), true)])?;
            test(db);
            Ok(())
        });
        outcome.await.unwrap();
    }

    #[tokio::test]
    async fn who_reports_nothing_has_no_rows() {
        on(|db| {
            set_reporting(db, &[("other".parse().unwrap(), true)]).unwrap();
            let id = queue(db, &commit('a'));
            assert!(of(db, &id).unwrap().is_empty());
            set_reporting(db, &[("hello".parse().unwrap(), false)]).unwrap();
            begin(db, &id, &[Step::Fetch]);
            let kinds: Vec<_> = of(db, &id).unwrap().iter().map(|it| it.kind).collect();
            assert_eq!(kinds, [Kind::Status]);
            // Nor does it keep what waits, once it reports no more.
            set_reporting(db, &[]).unwrap();
            assert!(waiting(db).unwrap().is_empty());
        })
        .await;
    }

    #[tokio::test]
    async fn a_row_changes_with_the_phase_and_not_with_each_state() {
        on(|db| {
            let a = commit('a');
            let id = queue(db, &a);
            let first = of(db, &id).unwrap().remove(0);
            assert_eq!((first.phase, first.revision), (Phase::Queued, 1));
            begin(db, &id, &[Step::Fetch, Step::Build, Step::Start]);
            let second = of(db, &id).unwrap().remove(0);
            assert_eq!((second.phase, second.revision), (Phase::Running, 2));
            // It was interrupted and waits again: still under way.
            deployments::apply(db, &id, Event::Interrupt).unwrap();
            assert_eq!(status(db, &a), (id.clone(), Phase::Running));
            // What was sent of an older revision does not count for a newer one.
            set_told(db, &first).unwrap();
            assert!(of(db, &id).unwrap().remove(0).is_waiting());
            set_told(db, &second).unwrap();
            assert!(!of(db, &id).unwrap().remove(0).is_waiting());
        })
        .await;
    }

    #[tokio::test]
    async fn the_newest_that_came_to_something_speaks_for_the_commit() {
        on(|db| {
            let a = commit('a');
            let first = queue(db, &a);
            go_live(db, &first);
            let second = queue(db, &a);
            assert_eq!(status(db, &a), (second.clone(), Phase::Queued));
            // Cancelled, it takes nothing back from the one that is live.
            deployments::end(db, &second, Event::Cancel, None).unwrap();
            assert_eq!(status(db, &a), (first.clone(), Phase::Live));
            let third = queue(db, &a);
            begin(db, &third, &[Step::Fetch]);
            deployments::end(db, &third, Event::Fail, None).unwrap();
            assert_eq!(status(db, &a), (third, Phase::Failed));
            assert_eq!(own(db, &first), [(a, Phase::Live)]);
        })
        .await;
    }

    #[tokio::test]
    async fn a_push_that_becomes_a_newer_commit_leaves_the_older_one() {
        on(|db| {
            let (a, b) = (commit('a'), commit('b'));
            let id = queue(db, &a);
            begin(db, &id, &[Step::Fetch]);
            deployments::set_commit(db, &id, &b, "", "").unwrap();
            assert_eq!(status(db, &a), (id.clone(), Phase::Superseded));
            assert_eq!(status(db, &b), (id.clone(), Phase::Running));
            let expected = [(a, Phase::Superseded), (b, Phase::Running)];
            assert_eq!(own(db, &id), expected);
        })
        .await;
    }

    #[tokio::test]
    async fn what_was_live_is_replaced_and_its_commit_stays_a_success() {
        on(|db| {
            let (a, b) = (commit('a'), commit('b'));
            let (first, second) = (queue(db, &a), queue(db, &b));
            // The second took the first's place in the queue.
            assert_eq!(own(db, &first), [(a.clone(), Phase::Superseded)]);
            go_live(db, &second);
            let back = queue(db, &a);
            go_live(db, &back);
            assert_eq!(own(db, &second), [(b.clone(), Phase::Replaced)]);
            assert_eq!(own(db, &back), [(a.clone(), Phase::Live)]);
            assert_eq!(status(db, &b), (second, Phase::Live));
            assert_eq!(status(db, &a), (back, Phase::Live));
        })
        .await;
    }

    #[tokio::test]
    async fn an_older_deployment_is_told_first_even_when_it_has_to_wait() {
        on(|db| {
            let first = queue(db, &commit('a'));
            go_live(db, &first);
            let second = queue(db, &commit('b'));
            let head = |kind| {
                let all = waiting(db).unwrap().into_iter();
                all.filter(|it| it.kind == kind).collect::<Vec<_>>()
            };
            let oldest = head(Kind::Deployment);
            assert_eq!(oldest.len(), 1);
            assert_eq!(oldest[0].deployment, first);
            set_later(db, &oldest[0], now() + 60_000, "down").unwrap();
            assert_eq!(head(Kind::Deployment)[0].deployment, first);
            // A status stands at its commit: one that has to wait holds up no other.
            let status = head(Kind::Status).remove(0);
            set_later(db, &status, now() + 60_000, "down").unwrap();
            assert_ne!(head(Kind::Status)[0].commit, status.commit);
            set_refused(db, &oldest[0], "no").unwrap();
            assert_eq!(head(Kind::Deployment)[0].deployment, second);
        })
        .await;
    }

    #[tokio::test]
    async fn one_that_fails_on_and_on_holds_up_no_later_one() {
        on(|db| {
            let first = queue(db, &commit('a'));
            go_live(db, &first);
            let second = queue(db, &commit('b'));
            let heads = || {
                let all = waiting(db).unwrap().into_iter();
                let all = all.filter(|it| it.kind == Kind::Deployment);
                all.collect::<Vec<_>>()
            };
            for attempt in 1..=PATIENCE {
                let head = heads().remove(0);
                assert_eq!(head.deployment, first, "{attempt}");
                set_later(db, &head, now() + 60_000, "no").unwrap();
            }
            // The later one is due; the other is known, for its time.
            let ids: Vec<_> = heads().into_iter().map(|it| it.deployment).collect();
            assert_eq!(ids, [second.clone(), first.clone()]);
            set_told(db, &heads()[0]).unwrap();
            assert_eq!(heads()[0].deployment, first);
        })
        .await;
    }

    #[tokio::test]
    async fn the_wait_for_a_forge_that_is_down_outlasts_a_change() {
        on(|db| {
            let id = queue(db, &commit('a'));
            let report = of(db, &id).unwrap().remove(0);
            let until = now() + 60_000;
            set_later(db, &report, until, "down").unwrap();
            begin(db, &id, &[Step::Fetch]);
            let report = of(db, &id).unwrap().remove(0);
            assert_eq!((report.due_at, report.attempts), (until, 1));
            set_told(db, &report).unwrap();
            let report = of(db, &id).unwrap().remove(0);
            assert!(report.due_at <= now() && report.attempts == 0);
        })
        .await;
    }
}
