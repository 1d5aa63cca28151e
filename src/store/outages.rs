//! Live releases that crash after their bake. The deployment stays `live`; what is reported about its
//! commit is a failure for as long as its row is here.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension};

use super::{Result, apps, deployments, events, now, parsed, statuses};
use crate::config::NotifyEvent;
use crate::ids::{AppName, DeploymentId};
use crate::state::State;

/// The apps whose live release crashes, as far as it has been reported.
pub fn open(db: &Connection) -> Result<BTreeSet<AppName>> {
    let mut query = db.prepare_cached("SELECT app FROM outages")?;
    let rows = query.query_map([], |row| parsed(row, "app"))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Reports that the live release of an app crashes, unless it is still being watched: then its bake
/// judges it.
pub fn begin(db: &Connection, app: &AppName) -> Result<()> {
    let Some(id) = live(db, app)? else {
        return Ok(());
    };
    let state = deployments::get(db, &id)?.map(|deployment| deployment.state);
    if state != Some(State::Live) {
        return Ok(());
    }
    let mut upsert = db.prepare_cached(
        "INSERT INTO outages (app, deployment, since) VALUES (?1, ?2, ?3)
         ON CONFLICT (app) DO UPDATE SET deployment = ?2, since = ?3 WHERE deployment <> ?2",
    )?;
    if upsert.execute((app.as_str(), id.as_str(), now()))? > 0 {
        events::happened(db, app, &id, NotifyEvent::Crashing)?;
    }
    statuses::changed(db, &id)
}

/// Reports that the app runs again. If another deployment has taken the place of the one that crashed,
/// nothing more is said about that one.
pub fn end(db: &Connection, app: &AppName) -> Result<()> {
    let mut delete =
        db.prepare_cached("DELETE FROM outages WHERE app = ?1 RETURNING deployment")?;
    let ended = delete.query_row([app.as_str()], |row| {
        parsed::<DeploymentId>(row, "deployment")
    });
    match ended.optional()? {
        Some(id) if live(db, app)?.as_ref() == Some(&id) => {
            events::happened(db, app, &id, NotifyEvent::Recovered)?;
            statuses::changed(db, &id)
        }
        _ => Ok(()),
    }
}

/// The deployment whose release is live.
fn live(db: &Connection, app: &AppName) -> Result<Option<DeploymentId>> {
    match apps::serving(db, app)?.live {
        Some(release) => deployments::last_of_release(db, &release),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Event, Step};
    use crate::store::fixture::release;
    use crate::store::statuses::StatusPhase;
    use crate::store::{Store, releases};

    fn phase(db: &Connection, id: &DeploymentId) -> StatusPhase {
        statuses::of(db, id).unwrap()[0].phase
    }

    #[tokio::test]
    async fn a_crash_after_the_bake_is_a_failure_until_it_runs_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let app: AppName = "hello".parse().unwrap();
            statuses::set_reporting(db, &[(app.clone(), false)])?;
            let go_live = |last: &[Step]| -> Result<DeploymentId> {
                let release = release(db, 1)?;
                let id = release.deployment;
                deployments::set_commit(db, &id, &release.commit, "First", "Ada")?;
                deployments::set_release(db, &id, &release.id)?;
                let steps = [
                    Step::Fetch,
                    Step::Build,
                    Step::Start,
                    Step::Probe,
                    Step::Switch,
                ];
                for step in steps.iter().chain(last) {
                    deployments::apply(db, &id, Event::Begin(*step))?;
                }
                releases::set_went_live(db, &release.id)?;
                apps::set_live(db, &app, &release.id)?;
                Ok(id)
            };
            let first = go_live(&[Step::Drain, Step::Bake])?;
            begin(db, &app)?;
            assert!(open(db)?.is_empty(), "its bake judges it");
            deployments::end(db, &first, Event::Finish, None)?;
            assert_eq!(phase(db, &first), StatusPhase::Live);

            begin(db, &app)?;
            begin(db, &app)?;
            assert_eq!(phase(db, &first), StatusPhase::Crashing);
            assert_eq!(deployments::get(db, &first)?.unwrap().state, State::Live);
            end(db, &app)?;
            assert_eq!(phase(db, &first), StatusPhase::Live);
            assert!(open(db)?.is_empty());

            // What takes its place says nothing about it.
            begin(db, &app)?;
            let second = go_live(&[Step::Drain])?;
            deployments::end(db, &second, Event::Finish, None)?;
            end(db, &app)?;
            assert!(open(db)?.is_empty());
            Ok(())
        });
        write.await.unwrap();
    }
}
