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
    if !line.agent.engine.has_image(&release.image_id).await? {
        return Err(Stop::failed(
            "image_gone",
            format!(
                "somebody removed the image `{}` of the release `{id}`",
                release.image
            ),
        ));
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
            (0..row.settings.run.replicas)
                .map(|index| {
                    let name = instance_name(&app, &deployment, index);
                    instances::insert(db, name, &app, &row.id, &deployment, &mut addresses)
                })
                .collect()
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
                    release,
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
