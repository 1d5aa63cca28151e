//! Stops an app for as long as a person wants, through restarts of the agent and of the machine, and starts
//! it again. Meanwhile its visitors get 503 and a page that says so, and what is to be deployed waits.

use super::{Agent, Result, cancel, intake, routes};
use crate::ids::AppName;
use crate::principal::Requester;
use crate::store::deployments::{self, Deployment, Trigger};
use crate::store::{actions, apps, instances};

/// Returns once the proxy answers for the app; its containers are stopped in the background, each with its
/// grace.
pub async fn stop(agent: &Agent, app: &AppName, by: Requester) -> Result<()> {
    let (of, who) = (app.clone(), by.clone());
    let running = agent.store.write(move |db| {
        if apps::stopped(db, &of)?.is_none() {
            let nothing = serde_json::json!({});
            actions::insert(db, actions::Kind::Stop, Some(&of), &nothing, &who)?;
            apps::set_stopped(db, &of, &who)?;
        }
        deployments::running(db, &of)
    });
    // What has not switched goes back to the queue, and on when the app is started.
    if let Some(running) = running.await?.filter(|it| !cancel::is_too_late(it.state)) {
        agent.hub.cancel(&running.id);
    }
    // A repair that was begun before ends first.
    drop(agent.tend.repairs.write().await);
    let of = app.clone();
    let retire = move |db: &_| instances::retire(db, &of, [None, None]);
    let count = agent.store.write(retire).await?;
    tracing::info!(%app, count, %by, "stopped an app");
    if let Err(error) = routes::publish(agent).await {
        tracing::warn!(%app, %error, "the proxy does not know yet that the app is stopped");
    }
    agent.retiring.notify_one();
    agent.hub.changed();
    Ok(())
}

/// Queues a deployment of what was live; `None` if the app was not stopped, or nothing was live. What
/// waited follows it.
pub async fn start(
    agent: &Agent,
    app: &AppName,
    trigger: Trigger,
    by: Requester,
) -> Result<Option<Deployment>> {
    let of = app.clone();
    let queued = agent.store.write(move |db| {
        if !apps::set_started(db, &of)? {
            return Ok(None);
        }
        let nothing = serde_json::json!({});
        actions::insert(db, actions::Kind::Start, Some(&of), &nothing, &by)?;
        intake::again(db, &of, trigger, by)
    });
    let queued = queued.await?;
    if let Err(error) = routes::publish(agent).await {
        tracing::warn!(%app, %error, "the proxy does not know yet that the app is started");
    }
    match &queued {
        Some(queued) => intake::announce(agent, queued),
        None => agent.hub.wake(app),
    }
    agent.scheduling.notify_one();
    Ok(queued)
}
