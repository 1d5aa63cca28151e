//! The switch: the point of no return is the commit of one transaction. Publishing the table and
//! waiting until the proxy has it follow, and are repeated until they succeed.

use futures_util::future::try_join_all;

use crate::deploy::checkpoint::Checkpoint;
use crate::deploy::line::{Done, Line, Stop, in_step};
use crate::deploy::steps::probe;
use crate::deploy::{bake, ending, routes};
use crate::engine::Status;
use crate::state::Step;
use crate::store::releases::Release;
use crate::store::{StoreError, apps, deployments, holds, instances, releases};

/// Makes `release` the live one.
pub async fn switch(line: &Line<'_>, release: &Release) -> Result<(), Stop> {
    // It must survive a reboot from the moment it is live, so the policy is set before.
    let of = release.id.clone();
    let engine = &line.agent.engine;
    let instances = line
        .agent
        .store
        .read(move |db| instances::of_release(db, &of));
    let instances = instances.await?;
    try_join_all(instances.iter().map(async |instance| {
        // An instance may have ended since its last probe: Docker then refuses the policy, or the
        // status shows it.
        let kept = engine.keep_running(&instance.ours(), true).await;
        if engine.status(&instance.ours()).await? != Status::Running {
            let stop = probe::exited(line, instance).await?;
            return Err(in_step(Step::Probe, stop, &line.log));
        }
        Ok(kept?)
    }))
    .await?;
    let (app, goes_live, cancel) = (line.app.name.clone(), release.clone(), line.cancel.clone());
    let deployment = line.id.clone();
    let begun = line.begin(Step::Switch, move |db| {
        // A cancellation and a pin are stored before the line is notified; a newer push and a stop of the
        // app only notify.
        let stops = match deployments::get(db, &deployment)? {
            Some(it) => it.cancelled_by.is_some() || holds::stops(db, &it)?.is_some(),
            None => false,
        };
        if stops || cancel.is_cancelled() {
            cancel.cancel();
            return Err(StoreError::Refused("it was cancelled".into()));
        }
        let id = &goes_live.id;
        if apps::vacated(db, &app)?.is_some() {
            // The old release has made room: nothing leads back to it.
            instances::retire(db, &app, [Some(id), None])?;
        }
        releases::set_replicas(db, &goes_live)?;
        releases::set_went_live(db, id)?;
        apps::set_live(db, &app, id)
    });
    match begun.await {
        Ok(_) => Ok(()),
        Err(_) if line.cancel.is_cancelled() => Err(Stop::Cancelled),
        Err(error) => Err(error.into()),
    }
}

/// Publishes the table, retrying for as long as it takes, and tells everybody who waits.
pub async fn publish(line: &Line<'_>, release: &Release) {
    line.insist("publish the route", || routes::publish(line.agent))
        .await;
    line.agent.tend.switched.notify_one();
    line.agent.retiring.notify_one();
    Checkpoint::Effected(Step::Switch).reach();
    let config = &line.agent.in_force().config;
    let detail = ending::serving(config, line.app, bake::time(line, release));
    line.log.line(&format!("[switch] {detail}"));
    line.note(Step::Switch, Done::new((), detail));
}
