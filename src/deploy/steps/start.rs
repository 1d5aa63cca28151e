//! Start the release's instances, or find them still warm.

use crate::deploy::checkpoint::Checkpoint;
use crate::deploy::instance_name;
use crate::deploy::line::{Done, Line, Stop};
use crate::engine::{InstanceSpec, Status};
use crate::ids::ReleaseId;
use crate::state::Step;
use crate::store::deployments;
use crate::store::instances::{self, Instance};
use crate::store::releases::{self, Release};
use crate::store::services::Service;

/// The kept release that a rollback goes back to.
pub async fn kept(line: &Line<'_>, id: &ReleaseId) -> Result<Release, Stop> {
    let (wanted, deployment) = (id.clone(), line.id.clone());
    let found = line.record(move |db| {
        let release = releases::get(db, &wanted)?;
        if let Some(release) = &release {
            deployments::set_release(db, &deployment, &release.id)?;
            let Release {
                commit,
                message,
                author,
                ..
            } = release;
            deployments::set_commit(db, &deployment, commit, message, author)?;
        }
        Ok(release)
    });
    let release = found.await?.filter(|release| release.removed_at.is_none());
    let release = release.ok_or_else(|| {
        Stop::failed(
            "release_gone",
            format!("the image of the release `{id}` is not kept any more"),
        )
    })?;
    for service in &release.services {
        if !line.agent.engine.has_image(&service.image_id).await? {
            let image = &service.image;
            let what = format!("somebody removed the image `{image}` of the release `{id}`");
            return Err(Stop::failed("image_gone", what));
        }
    }
    Ok(release)
}

/// Starts what does not run yet. The rows are there before the containers.
pub async fn start(line: &Line<'_>, release: &Release) -> Result<Vec<Instance>, Stop> {
    let network = line.agent.engine.network().await?;
    let (deployment, app, row) = (line.id.clone(), line.app.name.clone(), release.clone());
    let addresses = network.addresses();
    let instances = line
        .begin(Step::Start, move |db| {
            let warm = instances::of_release(db, &row.id)?;
            if !warm.is_empty() {
                return Ok(warm);
            }
            let mut addresses = addresses;
            let mut instances = Vec::new();
            for service in &row.services {
                for index in 0..service.replicas {
                    let name = instance_name(&app, &deployment, &service.name, index);
                    let (release, service) = (&row.id, &service.name);
                    let free = &mut addresses;
                    let new =
                        instances::insert(db, name, &app, release, service, &deployment, free)?;
                    instances.push(new);
                }
            }
            Ok(instances)
        })
        .await?;
    let effect = start_all(line, release, &network, instances);
    let done = tokio::select! {
        biased;
        () = line.cancel.cancelled() => return Err(Stop::Cancelled),
        done = effect => done.map_err(|stop| super::super::line::in_step(Step::Start, stop))?,
    };
    Checkpoint::Effected(Step::Start).reach();
    line.log.line(&format!("[start] {}", done.detail));
    Ok(line.note(Step::Start, done))
}

async fn start_all(
    line: &Line<'_>,
    release: &Release,
    network: &crate::engine::Network,
    instances: Vec<Instance>,
) -> Result<Done<Vec<Instance>>, Stop> {
    let engine = &line.agent.engine;
    let mut started = 0;
    for instance in &instances {
        if engine.status(&instance.name).await? != Status::Running {
            engine
                .start(&InstanceSpec {
                    instance,
                    service: service_of(release, instance)?,
                    network,
                })
                .await?;
            started += 1;
        }
    }
    let detail = match started {
        0 => "still running".to_owned(),
        1 => "1 instance".to_owned(),
        many => format!("{many} instances"),
    };
    Ok(Done::new(instances, detail))
}

/// What `instance` runs. Its release has a service of this name unless the database was damaged.
pub(super) fn service_of<'a>(
    release: &'a Release,
    instance: &Instance,
) -> Result<&'a Service, Stop> {
    release.service(&instance.service).ok_or_else(|| {
        let what = format!(
            "the release `{}` has no service `{}`",
            release.id, instance.service
        );
        Stop::failed("no_service", what)
    })
}
