//! Start the release's instances, or reuse those that are still warm.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use futures_util::{StreamExt, stream};
use rusqlite::Connection;

use crate::config::Strategy;
use crate::deploy::environment;
use crate::deploy::line::{Done, Line, Stop};
use crate::deploy::steps::instance::{Started, start_one};
use crate::deploy::steps::{alone, vacate};
use crate::deploy::{Agent, instance_name, output, rollback, routes, services, settings, words};
use crate::engine::{Endpoint, EngineError};
use crate::ids::{DeploymentId, ReleaseId};
use crate::state::Step;
use crate::store::deployments::{Deployment, Trigger};
use crate::store::instances::{self, Instance};
use crate::store::ours::{Ours, mark};
use crate::store::releases::{self, Release};
use crate::store::services::Service;
use crate::store::{apps, deployments, former_secrets, given_up, now, scales, variables};

/// How many instances are started at the same time.
const AT_ONCE: usize = 8;

/// The kept release that a rollback goes back to; the log says what it replaces.
pub async fn kept(line: &Line<'_>, id: &ReleaseId) -> Result<Release, Stop> {
    let (wanted, deployment) = (id.clone(), line.id.clone());
    let (app, log) = (line.app.name.clone(), line.log.clone());
    let found = line.record(move |db| {
        let mut release = releases::get(db, &wanted)?;
        if let Some(release) = &mut release {
            deployments::set_release(db, &deployment, &release.id)?;
            let Release {
                commit,
                message,
                author,
                ..
            } = release;
            deployments::set_commit(db, &deployment, commit, message, author)?;
            let to = words::release(release);
            match rollback::live(db, &app)? {
                Some(live) => {
                    log.line(&format!(
                        "rolling back from {} to {to}",
                        words::release(&live)
                    ));
                }
                None => log.line(&format!("rolling back to {to}")),
            }
            if let Some(deployment) = deployments::get(db, &deployment)? {
                for said in keep_scale(db, &deployment, release)? {
                    log.line(&said);
                }
            }
            let then = release.main();
            let then = then.map_or(BTreeMap::new(), |it| it.settings.kept.clone());
            let returning = differing(&then, &variables::values(db, &app)?);
            if !returning.is_empty() {
                log.line(&format!(
                    "the next deployment takes `{}` as `cutover env list {app}` has it again",
                    returning.join("`, `")
                ));
            }
        }
        Ok(release)
    });
    let release = found.await?.filter(|release| release.removed_at.is_none());
    let release = release.ok_or_else(|| {
        Stop::failed(
            "release_gone",
            format!("the image of the release `{id}` is no longer kept"),
        )
    })?;
    can_start(line, &release).await?;
    Ok(release)
}

/// What `cutover scale` keeps stays through a rollback that a person asks for: it is for the visitors of now, not for
/// a version. The switch records it. Says what the release runs with that what is live does not, or the other way
/// round.
pub fn keep_scale(
    db: &Connection,
    deployment: &Deployment,
    release: &mut Release,
) -> crate::deploy::Result<Vec<String>> {
    if deployment.trigger == Trigger::AutoRollback {
        return Ok(Vec::new());
    }
    let asked = scales::of_app(db, &release.app)?;
    let live = rollback::live(db, &release.app)?;
    let mut said = Vec::new();
    for service in &mut release.services {
        let (name, had) = (&service.name, service.replicas);
        let of_live = live.as_ref().and_then(|live| live.service(name));
        match asked.get(name) {
            Some(kept) if *kept != had => {
                let count = words::counted((*kept).into(), "instance");
                said.push(format!(
                    "`{name}` has {count}, as `cutover scale` keeps it; the release had {had}"
                ));
                service.replicas = *kept;
            }
            None if of_live.is_some_and(|live| live.replicas != had) => {
                let count = words::counted(had.into(), "instance");
                said.push(format!("`{name}` has {count} again, as the release had"));
            }
            _ => {}
        }
    }
    Ok(said)
}

/// The names whose values are not the same in both.
fn differing(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differ = names.into_iter();
    let differ = differ.filter(|name| one.get(*name) != other.get(*name));
    differ.cloned().collect()
}

/// A new release of the live one's images and settings.
pub async fn again(line: &Line<'_>) -> Result<Release, Stop> {
    let (id, app) = (line.id.clone(), line.app.name.clone());
    let configured = line.agent.app(&app);
    let made = line.record(move |db| {
        let live = apps::serving(db, &app)?.live;
        let live = live.map(|live| releases::get(db, &live)).transpose()?;
        let Some(live) = live.flatten() else {
            return Ok(None);
        };
        // An attempt that was interrupted may have made it, of what is live still.
        let made = deployments::get(db, &id)?.and_then(|it| it.release);
        let made = made.map(|made| releases::get(db, &made)).transpose()?;
        if let Some(made) = made.flatten().filter(|made| made.has_images_of(&live)) {
            return Ok(Some(made));
        }
        let mut release = Release {
            id: ReleaseId::new(),
            deployment: id.clone(),
            created_at: now(),
            went_live: None,
            removed_at: None,
            ..live
        };
        for service in &mut release.services {
            service.settings.kept = variables::values(db, &app)?;
            let asked = scales::get(db, &app, &service.name)?;
            let file = configured.as_ref();
            if let Some(app) = file {
                // How they are given too: what is to be a file must not become a variable.
                let now = settings::of(app);
                service.settings.secrets = now.secrets;
                service.settings.secret_files = now.secret_files;
            }
            let file = file.map(|app| services::configured(app, &service.name));
            service.replicas = asked.or(file).unwrap_or(service.replicas);
        }
        releases::insert(db, &release)?;
        former_secrets::record(db, &release.id)?;
        deployments::set_release(db, &id, &release.id)?;
        let Release {
            commit,
            message,
            author,
            ..
        } = &release;
        deployments::set_commit(db, &id, commit, message, author)?;
        Ok(Some(release))
    });
    let release = made.await?;
    let nothing = || Stop::failed("nothing_live", "nothing is live that could start again");
    let release = release.ok_or_else(nothing)?;
    line.log
        .line("the live release again, with the variables and secrets of now");
    can_start(line, &release).await?;
    Ok(release)
}

/// Whether its images and all that its settings refer to are there.
async fn can_start(line: &Line<'_>, release: &Release) -> Result<(), Stop> {
    let id = &release.id;
    for service in &release.services {
        if !line.agent.engine.has_image(&service.image_id).await? {
            let image = &service.image;
            let again = rollback::rebuild(release);
            let what =
                format!("the image `{image}` of the release `{id}` is gone from Docker; {again}");
            return Err(Stop::failed("image_gone", what));
        }
        environment::check(line.agent, &release.app, &service.settings).await?;
    }
    Ok(())
}

/// Starts what is not running yet. Rows are written before containers are created.
pub async fn start(line: &Line<'_>, release: &Release) -> Result<Vec<Instance>, Stop> {
    let (id, wanted) = (line.id.clone(), release.clone());
    let alone = line.app.deploy.strategy == Strategy::Recreate;
    let plan = move |db: &Connection| match alone {
        true => {
            vacate::intend(db, &wanted.app, &id)?;
            plan(db, &id, &wanted, When::Alone)
        }
        false => plan(db, &id, &wanted, When::Beside),
    };
    let effect = async |planned| {
        if alone {
            vacate::vacate(line, release).await?;
        }
        let (instances, started) = start_all(line, release, planned).await?;
        let detail = match started.len() {
            0 => "still running".to_owned(),
            count => words::counted(count as u64, "instance"),
        };
        let done = Done::new(instances, detail);
        Ok(done.recording(move |db| record(db, &started)))
    };
    line.step_after(Step::Start, plan, effect).await
}

/// Starts what could not run beside the old release; returns what was not running yet.
pub async fn late(line: &Line<'_>, release: &Release) -> Result<Vec<Instance>, Stop> {
    let (id, wanted) = (line.id.clone(), release.clone());
    let plan = move |db: &Connection| plan(db, &id, &wanted, When::Alone);
    let planned = line.agent.store.write(plan).await?;
    let (mut instances, started) = start_all(line, release, planned).await?;
    instances.retain(|it| started.iter().any(|(name, _)| *name == it.name));
    let write = move |db: &Connection| record(db, &started);
    line.agent.store.write(write).await?;
    Ok(instances)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// Without what must not run beside instances that another release still has.
    Beside,
    Alone,
}

struct Plan {
    instances: Vec<Instance>,
    /// What an attempt before may have left under a new instance's name.
    given_up: Vec<Ours>,
    /// Every recorded endpoint.
    recorded: Vec<Endpoint>,
}

/// The release's instances: those that are still warm, and a new row for each missing one. A release
/// may have lost some of its instances, and those that are retiring are none of it.
fn plan(
    db: &Connection,
    id: &DeploymentId,
    release: &Release,
    when: When,
) -> crate::deploy::Result<Plan> {
    let mut instances = instances::of_release(db, &release.id)?;
    let others = match when {
        When::Beside => alone::waits(db, release)?,
        When::Alone => BTreeMap::new(),
    };
    let mut left = Vec::new();
    let taken: HashSet<String> = instances::all(db)?.into_iter().map(|it| it.name).collect();
    let now = |it: &&Service| !others.contains_key(&it.name);
    for service in release.services.iter().filter(now) {
        let wanted = service.replicas as usize;
        let of = instances.iter().filter(|it| it.service == service.name);
        let of: Vec<_> = of.map(|it| it.name.clone()).collect();
        let missing = wanted.saturating_sub(of.len());
        // Those that it had more of than it is to have now.
        let spare = of.get(wanted..).unwrap_or_default();
        for name in spare {
            instances::retire_one(db, name)?;
        }
        instances.retain(|it| !spare.contains(&it.name));
        let names = (0..).map(|index| instance_name(&release.app, id, &service.name, index));
        let new: Vec<_> = names
            .filter(|name| !taken.contains(name))
            .take(missing)
            .map(|name| Instance {
                name,
                app: release.app.clone(),
                release: release.id.clone(),
                service: service.name.clone(),
                deployment: id.clone(),
                endpoint: None,
                mark: Some(mark()),
                engine: None,
            })
            .collect();
        for new in &new {
            left.extend(given_up::named(db, &new.name)?);
            instances::insert(db, new)?;
        }
        instances.extend(new);
    }
    let all = instances::all(db)?.into_iter();
    Ok(Plan {
        instances,
        given_up: left,
        recorded: all.filter_map(|instance| instance.endpoint).collect(),
    })
}

async fn start_all(
    line: &Line<'_>,
    release: &Release,
    plan: Plan,
) -> Result<(Vec<Instance>, Running), Stop> {
    let Plan {
        mut instances,
        given_up,
        recorded,
    } = plan;
    for left in &given_up {
        line.agent.engine.remove(left).await?;
    }
    let starts = instances
        .iter()
        .map(|it| start_one(line.agent, release, it, &recorded));
    let starts = stream::iter(starts.collect::<Vec<_>>()).buffered(AT_ONCE);
    // Each to its end, even if another one fails: the undo must find what the engine has made.
    let outcomes: Vec<_> = starts.collect().await;
    let mut started = Vec::new();
    for (instance, outcome) in instances.iter_mut().zip(outcomes) {
        if let Started::Now(endpoint) = outcome? {
            instance.endpoint = endpoint;
            started.push((instance.name.clone(), endpoint));
        }
    }
    Ok((instances, started))
}

/// What was not running yet, by name.
type Running = Vec<(String, Option<Endpoint>)>;

fn record(db: &Connection, started: &Running) -> crate::deploy::Result<()> {
    let mut each = started.iter();
    each.try_for_each(|(name, endpoint)| instances::set_endpoint(db, name, *endpoint))
}

/// Removes the instances that the deployment created. Those of an earlier deployment that a rollback
/// found warm stay: the reconciler stops them once nothing needs them. What made room for them serves again.
/// An error if the proxy sends requests to one: then the database is an old copy.
pub async fn undo(agent: &Agent, id: &DeploymentId) -> Result<(), EngineError> {
    let of = id.clone();
    let made = agent
        .store
        .read(move |db| instances::of_deployment(db, &of));
    let made = made.await?;
    let serving = routes::targets(&routes::routed(agent).await);
    for instance in made.into_iter().rev() {
        if serves(agent, &instance, &serving).await? {
            let name = instance.name;
            return Err(EngineError::Stopped(format!(
                "the proxy sends requests to `{name}`"
            )));
        }
        output::keep(agent, &instance).await;
        agent.engine.remove(&instance.ours()).await?;
        let delete = move |db: &Connection| instances::delete(db, &instance.name);
        agent.store.write(delete).await?;
    }
    vacate::undo(agent, id).await
}

/// Whether the instance has one of the addresses to which the proxy sends requests.
pub(super) async fn serves(
    agent: &Agent,
    instance: &Instance,
    serving: &HashSet<IpAddr>,
) -> Result<bool, EngineError> {
    if serving.is_empty() {
        return Ok(false);
    }
    let address = agent.engine.look(&instance.ours()).await?.address;
    // On this machine's own address are others too, and of such an app two releases never run at a time.
    let own = address.filter(|ip| !ip.is_loopback());
    Ok(own.is_some_and(|ip| serving.contains(&ip)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::deployments::Goal;
    use crate::store::fixture::{asked, release};

    #[tokio::test]
    async fn the_scale_of_now_is_recorded_only_when_the_old_release_goes_live() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let mut release = release(db, 1)?;
            let (app, id) = (release.app.clone(), release.id.clone());
            scales::set(db, &app, &release.services[0].name, Some(3))?;
            let recorded = |db| {
                Ok::<_, crate::store::StoreError>(
                    releases::get(db, &id)?.map(|it| it.services[0].replicas),
                )
            };
            let goal = Goal::Release(id.clone());
            let automatic = deployments::enqueue(db, &asked(Trigger::AutoRollback, goal.clone()))?;
            assert!(keep_scale(db, &automatic, &mut release)?.is_empty());
            assert_eq!(release.services[0].replicas, 1, "it may be warm");
            let asked = deployments::enqueue(db, &asked(Trigger::Rollback, goal))?;
            let said = keep_scale(db, &asked, &mut release)?;
            assert!(said[0].ends_with("the release had 1"), "{said:?}");
            assert_eq!(release.services[0].replicas, 3);
            assert_eq!(recorded(db)?, Some(1));
            releases::set_replicas(db, &release)?;
            assert_eq!(recorded(db)?, Some(3));
            Ok(())
        });
        write.await.unwrap();
    }

    #[tokio::test]
    async fn a_warm_release_that_lost_some_of_its_instances_gets_them_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let release = release(db, 3)?;
            let first = release.deployment.clone();
            let made = plan(db, &first, &release, When::Beside)?.instances;
            let names = |instances: &[Instance]| -> Vec<String> {
                instances.iter().map(|it| it.name.clone()).collect()
            };
            let of = |id: &DeploymentId, index: u32| format!("cutover-hello-{id}-{index}");
            assert_eq!(names(&made), [of(&first, 0), of(&first, 1), of(&first, 2)]);
            assert_eq!(
                plan(db, &first, &release, When::Beside)?.instances,
                made,
                "it can be repeated"
            );

            // The retiring was cut short by a rollback.
            instances::delete(db, &of(&first, 1))?;
            let back = DeploymentId::new();
            let planned = plan(db, &back, &release, When::Beside)?.instances;
            assert_eq!(
                names(&planned),
                [of(&first, 0), of(&first, 2), of(&back, 0)]
            );
            assert_eq!(
                planned[2].deployment, back,
                "an undo takes back this one alone"
            );

            // The same deployment again, with one of its own names free.
            instances::delete(db, &of(&first, 0))?;
            let again = plan(db, &first, &release, When::Beside)?.instances;
            assert_eq!(again.len(), 3);

            // It is to have fewer now.
            let mut fewer = release.clone();
            fewer.services[0].replicas = 1;
            assert_eq!(plan(db, &first, &fewer, When::Beside)?.instances.len(), 1);
            assert_eq!(instances::retiring(db)?.len(), 2);
            Ok(())
        });
        write.await.unwrap();
    }
}
