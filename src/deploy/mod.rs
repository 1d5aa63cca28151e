//! From a queued deployment to a rest state. `run` reads like the line; [`crate::state`] says what may
//! follow what; `recover` is the one place that cleans up after a crash.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};

use crate::config::Loaded;
use crate::engine::Engine;
use crate::ids::{AgentId, AppName, DeploymentId, ServiceName};
use crate::proxy::control::Client;
use crate::store::{Store, StoreError};

pub mod bake;
pub mod cancel;
pub mod checkpoint;
pub mod difference;
pub mod filter;
pub mod follow;
mod forwarding;
mod health;
mod hub;
mod in_force;
pub mod intake;
mod line;
pub mod queue;
pub mod recover;
pub mod reload;
pub mod removal;
pub mod rollback;
pub mod routes;
pub mod run;
mod steps;
pub mod tend;
mod undo;
pub mod unrecorded;

pub use hub::Hub;
pub use in_force::InForce;
use queue::Workers;
use tend::Tend;

/// Everything that deployments need; one per process, shared by all.
pub struct Agent {
    in_force: parking_lot::RwLock<Arc<InForce>>,
    /// The text of the file that the agent started with: settings that need a restart are still as
    /// in it.
    started_with: String,
    /// One reload at a time.
    changing: Mutex<()>,
    pub id: AgentId,
    pub store: Store,
    pub engine: Engine,
    pub proxy: Client,
    pub hub: Hub,
    pub workers: Workers,
    pub tend: Arc<Tend>,
    /// One publication of the route table at a time, so that they arrive in order.
    publishing: Mutex<()>,
    /// Apps whose routes are in the proxy but not in the database.
    pub unrecorded: unrecorded::Unrecorded,
    /// How many apps may be fetched and built at once.
    slots: Arc<Semaphore>,
}

impl Agent {
    pub fn new(loaded: Loaded, id: AgentId, store: Store, engine: Engine, proxy: Client) -> Self {
        // Builds are bound by the processors: running more of them than that makes nothing faster.
        let slots = std::thread::available_parallelism().map_or(2, |n| n.get().max(2));
        let slots = Arc::new(Semaphore::new(slots));
        let started_with = loaded.text.clone();
        let in_force = Arc::new(InForce::of(loaded));
        Self {
            in_force: parking_lot::RwLock::new(in_force),
            started_with,
            changing: Mutex::new(()),
            id,
            store,
            engine,
            proxy,
            hub: Hub::new(),
            workers: Workers::default(),
            tend: Arc::default(),
            publishing: Mutex::new(()),
            unrecorded: Default::default(),
            slots,
        }
    }

    /// Waits until Docker answers; logs once that it does not.
    pub async fn wait_for_engine(&self) {
        let mut pause = Duration::from_millis(100);
        let mut said = false;
        while let Err(error) = self.engine.ping().await {
            self.tend.engine_is_away();
            if !said {
                tracing::warn!(%error, "Docker is not reachable; deployments wait");
                said = true;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
        self.tend.engine_is_back();
        if said {
            tracing::info!("Docker is reachable again");
        }
    }
}

/// The container that runs a deployment's instance number `index` of a service.
fn instance_name(app: &AppName, id: &DeploymentId, service: &ServiceName, index: u32) -> String {
    match service.as_str() {
        "web" => format!("cutover-{app}-{id}-{index}"),
        other => format!("cutover-{app}-{id}-{other}-{index}"),
    }
}

/// Wake-ups by app, and handles by running deployment.
type Shared<K, V> = parking_lot::Mutex<HashMap<K, V>>;

type Result<T> = std::result::Result<T, StoreError>;
