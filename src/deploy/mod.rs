//! From a queued deployment to a rest state. `run` reads like the line; [`crate::state`] says what may
//! follow what; `recover` is the one place that cleans up after a crash.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Mutex, Notify, RwLock};

use crate::config::Loaded;
use crate::engine::Engine;
use crate::ids::{AgentId, AppName, DeploymentId, ServiceName};
use crate::proxy::control::Client;
use crate::store::{Store, StoreError};

pub mod bake;
pub mod cancel;
pub mod checkpoint;
mod counters;
pub mod cron;
pub mod detail;
pub mod difference;
mod disk;
pub mod ending;
pub mod environment;
pub mod filter;
pub mod follow;
mod forwarding;
mod health;
pub mod hold;
mod hub;
mod images;
mod in_force;
pub mod intake;
mod junit;
pub mod limits;
mod line;
mod links;
mod masks;
pub mod networks;
mod newcomers;
pub mod orphans;
pub mod output;
pub mod queue;
pub mod recover;
pub mod rekey;
pub mod reload;
pub mod removal;
pub mod rollback;
pub mod routes;
pub mod run;
pub mod scale;
pub mod secret_files;
pub mod secrets;
mod services;
pub mod session;
mod settings;
pub mod slots;
pub mod space;
mod steps;
pub mod stop;
pub mod tend;
pub mod totals;
pub mod traces;
pub mod traffic;
mod undo;
pub mod unrecorded;
pub mod usage;
pub mod variables;
mod vault;
mod waiting;
mod warm;
pub mod words;

pub use hub::Hub;
pub use in_force::InForce;
use queue::Workers;
use slots::Slots;
pub use steps::retire::instance as retire_instance;
use tend::Tend;
use totals::Totals;
use traffic::Traffic;
use usage::Usages;

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
    /// Notified when a certificate may be due.
    pub certifying: Notify,
    pub traffic: Traffic,
    pub totals: Totals,
    pub traces: traces::Traces,
    pub usages: Usages,
    /// Notified when a scheduled command may be due, or has ended.
    pub scheduling: Notify,
    /// Notified when instances are to be stopped.
    pub retiring: Notify,
    /// One publication of the route table at a time, so that they arrive in order.
    publishing: Mutex<()>,
    /// Apps whose routes are in the proxy but not in the database.
    pub unrecorded: unrecorded::Unrecorded,
    pub slots: Slots,
    /// Why the limits of builds do not hold.
    pub unlimited: parking_lot::Mutex<Option<String>>,
    /// Held for writing while the key of the secrets is replaced, for reading by whoever uses it.
    vault: RwLock<()>,
}

impl Agent {
    pub fn new(loaded: Loaded, id: AgentId, store: Store, engine: Engine, proxy: Client) -> Self {
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
            certifying: Notify::new(),
            traffic: Traffic::default(),
            totals: Totals::default(),
            traces: traces::Traces::default(),
            usages: Usages::default(),
            scheduling: Notify::new(),
            retiring: Notify::new(),
            publishing: Mutex::new(()),
            unrecorded: Default::default(),
            slots: Slots::default(),
            unlimited: Default::default(),
            vault: RwLock::new(()),
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

/// The service of the instance that has this container.
fn process_of(container: &str) -> &str {
    let service = short_name(container).and_then(|rest| rest.rsplit_once('-'));
    service.map_or("web", |(service, _)| service)
}

/// Whether a container is one that a person names: in full, by how its name ends (`worker-0`, `web-1`), by its number
/// in every process (`0`), or by its process.
fn is_meant(container: &str, wanted: &str) -> bool {
    let short = short_name(container).unwrap_or(container);
    let process = process_of(container);
    // Those of `web` do not have it in their names.
    let of_web = wanted.strip_prefix("web-").filter(|_| process == "web");
    // `my-worker-0` ends with `worker-0` and is another process: a longer end has the deployment's id.
    let longer = Some(wanted).filter(|it| it.len() > short.len());
    let rest = longer.and_then(|end| container.strip_suffix(end));
    let ends_so = rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('-'));
    let number = container.rsplit('-').next();
    let has_its_name = short == wanted || of_web == Some(short) || ends_so;
    has_its_name || process == wanted || number == Some(wanted)
}

/// What tells an instance from the others of its deployment: `0`, or `worker-0`.
pub fn short_name(container: &str) -> Option<&str> {
    let parts = container.match_indices('-').map(|(at, _)| at + 1);
    let parts: Vec<usize> = parts.collect();
    parts.iter().rev().find_map(|at| {
        let (id, rest) = container[*at..].split_once('-')?;
        id.parse::<DeploymentId>().ok().map(|_| rest)
    })
}

/// Wake-ups by app, and handles by running deployment.
type Shared<K, V> = parking_lot::Mutex<HashMap<K, V>>;

type Result<T> = std::result::Result<T, StoreError>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_s_name_says_its_service() {
        let (app, id) = ("my-app".parse().unwrap(), DeploymentId::new());
        for service in ["web", "worker", "a-b-0"] {
            let name = instance_name(&app, &id, &service.parse().unwrap(), 7);
            assert_eq!(process_of(&name), service, "{name}");
        }
    }

    #[test]
    fn the_end_of_a_name_means_no_instance_of_another_process() {
        let (app, id) = ("my-app".parse().unwrap(), DeploymentId::new());
        let all = ["web", "worker", "my-worker"]
            .map(|service| instance_name(&app, &id, &service.parse().unwrap(), 0));
        let meant = |wanted: &str| -> Vec<&str> {
            let meant = all.iter().filter(|name| is_meant(name, wanted));
            meant.map(|name| process_of(name)).collect()
        };
        for (process, name) in ["web", "worker", "my-worker"].into_iter().zip(&all) {
            let short = format!("{process}-0");
            for wanted in [
                process,
                &short,
                name,
                name.strip_prefix("cutover-my-").unwrap(),
            ] {
                assert_eq!(meant(wanted), [process], "{wanted}");
            }
        }
        assert_eq!(meant("0"), ["web", "worker", "my-worker"]);
        assert_eq!(meant(&format!("{id}-worker-0")), ["worker"]);
        for nothing in ["", "orker-0", "-0", "web-web-0", "my-worker-1", "x"] {
            assert!(meant(nothing).is_empty(), "{nothing}");
        }
    }
}
