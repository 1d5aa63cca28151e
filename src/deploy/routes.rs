//! The route table: a function of the configuration and the database, published whole.

use std::net::{IpAddr, SocketAddr};

use rusqlite::Connection;

use super::Agent;
use super::forwarding::{self, Pages};
use crate::config::Config;
use crate::proxy::control;
use crate::proxy::table::{Route, Table};
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
    let table = agent.store.read(move |db| table(db, &config)).await?;
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

fn table(db: &Connection, config: &Config) -> Result<Table, StoreError> {
    // One snapshot, so that the number belongs to the content.
    let snapshot = db.unchecked_transaction()?;
    let mut routes = Vec::new();
    let mut pages = Pages::new();
    for app in config.apps.values() {
        let serving = apps::serving(&snapshot, &app.name)?;
        let mut targets = Vec::new();
        let mut protocol = app.protocol;
        if let Some(live) = &serving.live
            && let Some(release) = releases::get(&snapshot, live)?
        {
            let port = release.settings.port;
            protocol = release.settings.protocol;
            for instance in instances::of_release(&snapshot, live)? {
                targets.push(SocketAddr::new(IpAddr::V4(instance.address), port));
            }
        }
        routes.push(Route {
            app: app.name.to_string(),
            release: serving.live.map(|id| id.to_string()).unwrap_or_default(),
            generation: serving.generation,
            hosts: app.domains.clone(),
            path_prefix: app.proxy.path.clone(),
            targets,
            settings: forwarding::settings(&app.proxy, protocol, &mut pages),
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
        pages: pages.of(&config.proxy.error_pages),
    })
}
