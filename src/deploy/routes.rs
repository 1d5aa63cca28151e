//! The route table: a function of the configuration and the database, published whole.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rusqlite::Connection;

use super::Agent;
use super::forwarding::Forwarding;
use crate::config::{Config, Protocol};
use crate::proxy::control;
use crate::proxy::table::{Route, Settings, Table};
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
    let config = agent.config.clone();
    let forwarding = agent.forwarding.lock().clone();
    let table = agent.store.read(move |db| table(db, &config, &forwarding));
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

/// Takes over what deploy.toml now says of the hosts of the apps that the agent knows, and of how
/// the proxy treats their requests.
pub async fn reload(agent: &Agent, config: Config) -> Result<(), PublishError> {
    let read = tokio::task::spawn_blocking(move || Forwarding::of(&config));
    if let Ok(newer) = read.await {
        let mut forwarding = agent.forwarding.lock();
        *forwarding = Arc::new(newer.with_those_of(&forwarding));
    }
    publish_anew(agent).await
}

fn table(db: &Connection, config: &Config, forwarding: &Forwarding) -> Result<Table, StoreError> {
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
        routes.push(Route {
            app: app.name.to_string(),
            release: serving.live.map(|id| id.to_string()).unwrap_or_default(),
            generation: serving.generation,
            hosts: route.hosts,
            path_prefix: route.path_prefix,
            targets,
            settings: Settings {
                h2c: protocol == Protocol::H2c,
                ..route.settings
            },
        });
    }
    if let Some(domain) = &config.agent.domain {
        routes.push(Route {
            app: "cutover".into(),
            release: "agent".into(),
            hosts: vec![domain.clone()],
            path_prefix: "/".into(),
            targets: vec![config.agent.listen],
            ..Default::default()
        });
    }
    Ok(Table {
        generation: apps::generation(&snapshot)?,
        routes,
        pages: forwarding.pages.clone(),
    })
}
