//! The release before, which still runs while a new one is watched. The proxy sends it what the new one
//! does not take, and all requests as soon as it is decided that the new one is rolled back.

use rusqlite::Connection;

use super::Result;
use crate::engine::Endpoint;
use crate::ids::{AppName, DeploymentId, ReleaseId};
use crate::store::deployments::{self, Deployment, Goal, Trigger};
use crate::store::{apps, instances, releases};

/// A release that runs without being live.
#[derive(Debug, PartialEq, Eq)]
pub struct Warm {
    pub release: ReleaseId,
    pub endpoints: Vec<Endpoint>,
    /// Whether the app goes back to it, so that it gets every request.
    pub takes_over: bool,
}

/// The app's warm release, if it has one.
pub fn of(db: &Connection, app: &AppName) -> Result<Option<Warm>> {
    let open = deployments::open_of(db, app)?;
    // What the rollback has started itself has not been probed.
    if let Some((release, by)) = open.iter().find_map(goes_back_to)
        && let Some(endpoints) = endpoints(db, release, Some(by))?
    {
        return Ok(Some(Warm {
            release: release.clone(),
            endpoints,
            takes_over: true,
        }));
    }
    if !open.iter().any(|deployment| deployment.state.is_switched()) {
        return Ok(None);
    }
    let live = apps::serving(db, app)?.live;
    for release in releases::kept(db, app)? {
        if release.went_live.is_some()
            && Some(&release.id) != live.as_ref()
            && !deployments::was_rolled_back(db, &release.id)?
            && let Some(endpoints) = endpoints(db, &release.id, None)?
        {
            return Ok(Some(Warm {
                release: release.id,
                endpoints,
                takes_over: false,
            }));
        }
    }
    Ok(None)
}

/// The release that an automatic rollback restores, before its own switch; and the rollback.
fn goes_back_to(deployment: &Deployment) -> Option<(&ReleaseId, &DeploymentId)> {
    match &deployment.goal {
        Goal::Release(release)
            if deployment.trigger == Trigger::AutoRollback && !deployment.state.is_switched() =>
        {
            Some((release, &deployment.id))
        }
        _ => None,
    }
}

fn endpoints(
    db: &Connection,
    release: &ReleaseId,
    but: Option<&DeploymentId>,
) -> Result<Option<Vec<Endpoint>>> {
    let instances = instances::warm(db, release, but)?.into_iter();
    let endpoints: Vec<_> = instances.filter_map(|it| it.endpoint).collect();
    Ok((!endpoints.is_empty()).then_some(endpoints))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ServiceName;
    use crate::state::{Event, Step};
    use crate::store::Store;
    use crate::store::fixture::{asked, release};
    use crate::store::instances::Instance;

    #[tokio::test]
    async fn the_release_before_is_warm_from_the_switch_to_the_end_and_takes_over_in_a_rollback() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let app: AppName = "hello".parse().unwrap();
            let mut made = Vec::new();
            for number in [1, 2] {
                let release = release(db, 1)?;
                let endpoint = format!("10.0.0.{number}:80").parse().unwrap();
                let instance = Instance {
                    name: format!("cutover-hello-{number}"),
                    app: app.clone(),
                    release: release.id.clone(),
                    service: ServiceName::web(),
                    deployment: release.deployment.clone(),
                    endpoint: Some(endpoint),
                    mark: None,
                    engine: None,
                };
                instances::insert(db, &instance)?;
                let id = &release.deployment.clone();
                for step in [Step::Fetch, Step::Build, Step::Start, Step::Probe] {
                    deployments::apply(db, id, Event::Begin(step))?;
                }
                assert_eq!(of(db, &app)?, None, "not before the switch");
                deployments::apply(db, id, Event::Begin(Step::Switch))?;
                releases::set_went_live(db, &release.id)?;
                apps::set_live(db, &app, &release.id)?;
                made.push((release, endpoint));
                if number == 1 {
                    assert_eq!(of(db, &app)?, None, "a first release has none before it");
                    deployments::apply(db, id, Event::Begin(Step::Drain))?;
                    deployments::end(db, id, Event::Finish, None)?;
                }
            }
            let (old, new) = (&made[0], &made[1].0);
            let warm = |takes_over| Warm {
                release: old.0.id.clone(),
                endpoints: vec![old.1],
                takes_over,
            };
            assert_eq!(of(db, &app)?, Some(warm(false)));

            deployments::apply(db, &new.deployment, Event::Begin(Step::Drain))?;
            deployments::apply(db, &new.deployment, Event::Begin(Step::Bake))?;
            deployments::end(db, &new.deployment, Event::RollBack, None)?;
            let back = asked(Trigger::AutoRollback, Goal::Release(old.0.id.clone()));
            let back = deployments::enqueue(db, &back)?;
            assert_eq!(of(db, &app)?, Some(warm(true)));
            // What the rollback starts gets nothing before its probe, nor does what it starts again.
            let more = Instance {
                name: "cutover-hello-3".into(),
                app: app.clone(),
                release: old.0.id.clone(),
                service: ServiceName::web(),
                deployment: back.id,
                endpoint: Some("10.0.0.3:80".parse().unwrap()),
                mark: None,
                engine: None,
            };
            instances::insert(db, &more)?;
            assert_eq!(of(db, &app)?, Some(warm(true)));
            instances::set_stopped(db, "cutover-hello-1")?;
            assert_eq!(of(db, &app)?, None);
            apps::set_live(db, &app, &old.0.id)?;
            assert_eq!(of(db, &app)?, Some(warm(true)), "from the switch on");
            instances::retire(db, &app, [Some(&new.id), None])?;
            assert_eq!(of(db, &app)?, None, "it is stopped");
            Ok(())
        });
        write.await.unwrap();
    }
}
