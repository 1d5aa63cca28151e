//! How many instances the services of an app have: what a person asked for or, without that, what
//! deploy.toml says.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use super::{Agent, Result, intake, rollback, services};
use crate::config::App;
use crate::ids::ServiceName;
use crate::principal::Requester;
use crate::store::deployments::{Deployment, Trigger};
use crate::store::{StoreError, actions, scales};

/// The scale of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    pub service: ServiceName,
    /// What a person asked for.
    pub asked: Option<u32>,
    /// What deploy.toml says.
    pub configured: u32,
}

/// The scales of an app's services, those that only its live release has included.
pub async fn of(agent: &Agent, app: &App) -> Result<Vec<Scale>> {
    let app = app.clone();
    agent.store.read(move |db| recorded(db, &app)).await
}

/// The same, as the database has them.
pub fn recorded(db: &Connection, app: &App) -> Result<Vec<Scale>> {
    let asked = scales::of_app(db, &app.name)?;
    let all = known(db, app)?.into_iter();
    let all = all.map(|service| Scale {
        asked: asked.get(&service).copied(),
        configured: services::configured(app, &service),
        service,
    });
    Ok(all.collect())
}

/// Sets some of them, and queues a deployment of the live release if that has other numbers. With
/// `None`, deploy.toml counts again.
pub async fn scale(
    agent: &Agent,
    app: &App,
    wanted: BTreeMap<ServiceName, Option<u32>>,
    trigger: Trigger,
    by: Requester,
) -> Result<Option<Deployment>> {
    let app = app.clone();
    let name = app.name.clone();
    let write = agent.store.write(move |db| {
        let known = known(db, &app)?;
        for (service, replicas) in &wanted {
            if !known.contains(service) {
                return Err(unknown(&app, service, &known));
            }
            let before = scales::get(db, &app.name, service)?;
            let detail =
                serde_json::json!({ "service": service, "before": before, "replicas": replicas });
            actions::insert(db, actions::Kind::Scale, Some(&app.name), &detail, &by)?;
            scales::set(db, &app.name, service, *replicas)?;
        }
        let live = rollback::live(db, &app.name)?;
        let other = live.into_iter().flat_map(|live| live.services);
        let mut other = other.filter(|has| {
            let wanted = wanted.get(&has.name);
            let file = || services::configured(&app, &has.name);
            wanted.is_some_and(|wanted| wanted.unwrap_or_else(file) != has.replicas)
        });
        match other.next() {
            Some(_) => intake::again(db, &app.name, trigger, by),
            None => Ok(None),
        }
    });
    let queued = write.await?;
    tracing::info!(app = %name, "scaled");
    if let Some(queued) = &queued {
        intake::announce(agent, queued);
    }
    Ok(queued)
}

/// The services that deploy.toml names, and those of the live release.
fn known(db: &Connection, app: &App) -> Result<BTreeSet<ServiceName>> {
    let mut known: BTreeSet<_> = app.port.map(|_| ServiceName::web()).into_iter().collect();
    let named = app.processes.iter().flat_map(|it| it.others.keys());
    known.extend(named.cloned());
    let live = rollback::live(db, &app.name)?.into_iter();
    known.extend(live.flat_map(|it| it.services).map(|it| it.name));
    Ok(known)
}

fn unknown(app: &App, service: &ServiceName, known: &BTreeSet<ServiceName>) -> StoreError {
    let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    StoreError::Refused(format!(
        "`{}` has no process `{service}`: it has {}",
        app.name,
        known.join(", ")
    ))
}
