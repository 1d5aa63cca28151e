//! How many instances an app has: what a person asked for or, without that, what deploy.toml says.

use super::{Agent, Result, intake};
use crate::config::App;
use crate::ids::ServiceName;
use crate::principal::Requester;
use crate::store::deployments::{Deployment, Trigger};
use crate::store::{actions, apps, releases, scales};

/// Sets it, and queues a deployment of the live release if that has another number. With `None`,
/// deploy.toml counts again.
pub async fn scale(
    agent: &Agent,
    app: &App,
    replicas: Option<u32>,
    trigger: Trigger,
    by: Requester,
) -> Result<Option<Deployment>> {
    let (name, file) = (app.name.clone(), app.run.replicas);
    let write = agent.store.write(move |db| {
        let web = ServiceName::web();
        let detail = serde_json::json!({ "service": web.as_str(), "replicas": replicas });
        actions::insert(db, actions::Kind::Scale, Some(&name), &detail, &by)?;
        scales::set(db, &name, &web, replicas)?;
        let live = apps::serving(db, &name)?.live;
        let live = live.map(|live| releases::get(db, &live)).transpose()?;
        let has = live.flatten().and_then(|it| it.web().map(|it| it.replicas));
        match has {
            Some(has) if has != replicas.unwrap_or(file) => intake::again(db, &name, trigger, by),
            _ => Ok(None),
        }
    });
    let queued = write.await?;
    tracing::info!(app = %app.name, ?replicas, "scaled");
    if let Some(queued) = &queued {
        intake::announce(agent, queued);
    }
    Ok(queued)
}

/// What a person asked for.
pub async fn asked(agent: &Agent, app: &App) -> Result<Option<u32>> {
    let name = app.name.clone();
    let read = move |db: &_| scales::get(db, &name, &ServiceName::web());
    agent.store.read(read).await
}
