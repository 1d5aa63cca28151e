//! The route table: a function of the configuration and the database, published whole.

use std::sync::Arc;

use rusqlite::Connection;

use super::{Agent, InForce};
use crate::config::{self, Loaded, Protocol};
use crate::proxy::control;
use crate::proxy::table::{Policy, Route, Share, Table};
use crate::store::{StoreError, apps, instances, releases};

/// Whose the agent's own route is. Never the name of an app.
const AGENT: &str = "@agent";

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
                if let (Some(service), Some(endpoint)) = (service, instance.endpoint) {
                    protocol = service.protocol;
                    targets.push(endpoint);
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
    routes.extend(agent_route(&config.agent));
    Ok(Table {
        generation: apps::generation(&snapshot)?,
        routes,
        pages: forwarding.pages.clone(),
    })
}

/// The agent's own, where it has a domain.
fn agent_route(agent: &config::Agent) -> Option<Route> {
    let domain = agent.domain.as_ref()?;
    Some(Route {
        app: AGENT.into(),
        hosts: vec![domain.clone()],
        shares: vec![Share::whole("agent", 0, vec![agent.listen])],
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::AppName;

    /// Its route never changes: a drain of an app of the same name would wait for it for ever.
    #[test]
    fn the_agent_s_route_belongs_to_no_app() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        std::fs::write(&path, "[agent]\ndomain = 'deploy.example.com'").unwrap();
        let config = config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
        let route = agent_route(&config.agent).unwrap();
        assert_eq!(route.hosts, ["deploy.example.com"]);
        assert!(route.app.parse::<AppName>().is_err(), "{}", route.app);
    }
}
