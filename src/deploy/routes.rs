//! The route table: a function of the configuration and the database, published whole.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rusqlite::Connection;

use super::{Agent, InForce};
use crate::config::{Loaded, Protocol};
use crate::proxy::control;
use crate::proxy::table::{Policy, Route, Share, Table};
use crate::store::{StoreError, apps, instances, releases};

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Proxy(#[from] control::Error),
}

/// Sends the table; returns when no request can be routed by an older one.
pub async fn publish(agent: &Agent) -> Result<(), PublishError> {
    // Two publications at once could arrive in the wrong order; what waits here reads the newest.
    let _turn = agent.publishing.lock().await;
    let in_force = agent.in_force();
    let table = agent.store.read(move |db| table(db, &in_force));
    let table = table.await?;
    agent.proxy.publish(&table).await?;
    Ok(())
}

/// Publishes at start: under a number above the proxy's, since the configuration may have changed
/// and a database may have been brought back from a backup.
pub async fn publish_anew(agent: &Agent) -> Result<(), PublishError> {
    let known = agent.proxy.hello().await?.generation;
    agent
        .store
        .write(move |db| apps::next_generation(db, known))
        .await?;
    publish(agent).await
}

/// Takes over what deploy.toml now says.
pub async fn reload(agent: &Agent, loaded: Loaded) -> Result<(), PublishError> {
    let before = agent.in_force();
    let read = tokio::task::spawn_blocking(move || before.next(loaded));
    if let Ok(next) = read.await {
        *agent.in_force.write() = Arc::new(next);
    }
    publish_anew(agent).await
}

fn table(db: &Connection, in_force: &InForce) -> Result<Table, StoreError> {
    let (config, forwarding) = (&in_force.config, &in_force.forwarding);
    // One snapshot, so that the number belongs to the content.
    let snapshot = db.unchecked_transaction()?;
    let mut routes = Vec::new();
    for app in config.apps.values() {
        let Some(route) = forwarding.app(&app.name).cloned() else {
            continue;
        };
        let serving = apps::serving(&snapshot, &app.name)?;
        let mut targets = Vec::new();
        let mut protocol = app.protocol;
        if let Some(live) = &serving.live
            && let Some(release) = releases::get(&snapshot, live)?
        {
            for instance in instances::of_release(&snapshot, live)? {
                let service = release.service(&instance.service);
                if let Some(service) = service
                    && let Some(port) = service.port
                {
                    protocol = service.protocol;
                    targets.push(SocketAddr::new(IpAddr::V4(instance.address), port));
                }
            }
        }
        let release = serving.live.map(|id| id.to_string()).unwrap_or_default();
        routes.push(Route {
            app: app.name.to_string(),
            generation: serving.generation,
            hosts: route.hosts,
            path_prefix: route.path_prefix,
            shares: vec![Share::whole(release, serving.generation, targets)],
            policy: Policy {
                h2c: protocol == Protocol::H2c,
                ..route.policy
            },
        });
    }
    if let Some(domain) = &config.agent.domain {
        routes.push(Route {
            app: "cutover".into(),
            hosts: vec![domain.clone()],
            path_prefix: "/".into(),
            shares: vec![Share::whole("agent", 0, vec![config.agent.listen])],
            ..Default::default()
        });
    }
    Ok(Table {
        generation: apps::generation(&snapshot)?,
        routes,
        pages: forwarding.pages.clone(),
    })
}
