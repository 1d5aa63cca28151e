//! The networks of apps: what a container is told of the apps that it is linked to, and what is left of
//! apps that are gone.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use super::{Agent, routes};
use crate::engine::EngineError;
use crate::ids::AppName;
use crate::store::networks::{self, Network};
use crate::store::{StoreError, app_names};

/// The addresses by which a container of `app` reaches those that it is linked to. Makes the app's
/// network, and lets the proxy listen there.
pub async fn hosts(
    agent: &Agent,
    app: &AppName,
    links: &[AppName],
) -> std::result::Result<BTreeMap<String, IpAddr>, NetworksError> {
    if links.is_empty() {
        return Ok(BTreeMap::new());
    }
    let found = agent.engine.network_of(app).await?;
    let network = Network {
        name: found.name,
        app: app.clone(),
        subnet: found.subnet,
    };
    let record = move |db: &_| networks::record(db, &network);
    if agent.store.write(record).await?
        && let Err(error) = routes::publish(agent).await
    {
        // The proxy gets the newest table when it is back.
        tracing::warn!(%app, %error, "failed to publish the routes of its links, will retry");
    }
    let address = |name: &AppName| (name.to_string(), found.gateway.into());
    Ok(links.iter().map(address).collect())
}

#[derive(Debug, thiserror::Error)]
pub enum NetworksError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Removes the networks of apps that are gone, and that of one which was removed although deploy.toml has
/// it.
pub async fn sweep(
    agent: &Agent,
    removed: Option<&AppName>,
) -> std::result::Result<(), NetworksError> {
    let in_use = agent.store.read(app_names::in_use).await?;
    let in_force = agent.in_force();
    let configured = in_force.config.apps.keys().cloned();
    let configured = configured.filter(|app| Some(app) != removed);
    let apps: HashSet<AppName> = configured.chain(in_use).collect();
    let left = agent.engine.sweep_networks(&apps).await?;
    let forget = move |db: &_| networks::keep_only(db, &left);
    agent.store.write(forget).await?;
    Ok(())
}
