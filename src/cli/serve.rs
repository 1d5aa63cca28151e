//! `cutover serve`: the agent. The only place that wires things together.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::shutdown::shutdown;
use super::{Error, Global, configuration};
use crate::api::{
    self, Api, Bodies, Health, Links, Refusals, Sessions, WebhookSecrets, auth::Tokens,
};
use crate::config::Loaded;
use crate::deploy::{Agent, intake, rekey, reload, routes};
use crate::engine::Engine;
use crate::ids::AgentId;
use crate::jobs;
use crate::notify;
use crate::proxy::{
    self,
    control::{self, Client},
    listen_hint,
};
use crate::store::{Store, apps, runs};
use crate::vital::vital;

mod data_plane;
mod greeting;

use data_plane::{DataPlane, Ensured};

/// The pause before a step that failed at start is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Run the agent: webhooks, API and deployments (starts the proxy or adopts a running one)
#[derive(Debug, Args)]
pub struct Serve {
    /// Keep the proxy running when the agent stops
    #[arg(long)]
    leave_proxy: bool,
}

/// Serves until SIGTERM or SIGINT.
pub async fn run(args: Serve, global: &Global) -> Result<(), Error> {
    let loaded = configuration::loaded(global)?;
    let path = loaded.path.clone();
    let data_dir = loaded.config.agent.data_dir.clone();
    proxy::raise_file_limit();
    let _lock = lock(&data_dir)?;
    // Done before anything is started that would have to be stopped if this fails.
    let tcp = listen(loaded.config.agent.listen).await?;
    let proxy = Client::new(data_dir.join(control::SOCKET));
    let options = super::proxy::options(loaded.config.clone());
    let data_plane = DataPlane::new(proxy.clone(), path, &options);
    let started = data_plane.ensure().await?;
    let served = serve(loaded, tcp, data_plane).await;
    // An agent that fails leaves the proxy as it found it.
    let stops = match &served {
        Ok(()) => !args.leave_proxy,
        Err(_) => started == Ensured::Started,
    };
    if stops && let Err(error) = proxy.stop().await {
        tracing::warn!(%error, "failed to stop the proxy");
    }
    served
}

/// Runs the agent while the proxy is running.
async fn serve(loaded: Loaded, tcp: TcpListener, data_plane: DataPlane) -> Result<(), Error> {
    let data_dir = loaded.config.agent.data_dir.clone();
    let proxy = data_plane.client.clone();
    let opened = tokio::select! {
        opened = open(&data_dir) => Some(opened?),
        () = shutdown() => None,
    };
    let Some((store, id)) = opened else {
        return Ok(());
    };
    let engine = Engine::docker(loaded.config.docker.host.clone(), id.clone(), &data_dir);
    let agent = Arc::new(Agent::new(loaded, id, store, engine, proxy));

    let tokens = Tokens::load(&data_dir, agent.store.clone());
    let tokens = tokens.map_err(|e| failed("failed to read or create the API's token", &e))?;
    let api = Arc::new(Api {
        agent: agent.clone(),
        tokens,
        health: Health::default(),
        bodies: Bodies::default(),
        refusals: Refusals::default(),
        webhook_secrets: WebhookSecrets::default(),
        links: Links::default(),
        sessions: Sessions::default(),
    });
    let router = api::router(api.clone());
    let socket = data_dir.join("agent.sock");
    let unix = api::listen::bind_unix(&socket)
        .map_err(|e| failed(&format!("failed to listen on `{}`", socket.display()), &e))?;
    // This file only tells others the agent's address, so a failure does not stop the agent.
    if let Err(error) = write_address(&data_dir.join("agent.addr"), &tcp_address(&tcp)) {
        tracing::error!(%error, "failed to write the agent's address to `agent.addr`");
    }

    let tell_refusals = api::refusals::tell(api.clone());
    let mut background = JoinSet::new();
    background.spawn(vital("telling of refusals", tell_refusals));
    background.spawn(vital(
        "keeping the proxy",
        data_plane::keep(data_plane, agent.clone()),
    ));
    background.spawn(vital("sweeping", jobs::sweep(agent.clone())));
    background.spawn(vital("reconciling", jobs::reconcile(agent.clone())));
    background.spawn(vital("scheduling", jobs::schedule(agent.clone())));
    background.spawn(vital("retiring", jobs::retire(agent.clone())));
    background.spawn(vital("asking registries", jobs::poll(agent.clone())));
    background.spawn(vital(
        "shrinking the build cache",
        jobs::cache(agent.clone()),
    ));
    background.spawn(vital("pruning", jobs::prune(agent.clone())));
    background.spawn(vital("certifying", jobs::certify(agent.clone())));
    background.spawn(vital("asking about names", jobs::ask(agent.clone())));
    background.spawn(vital("looking at disks", jobs::alarms(agent.clone())));
    background.spawn(vital("counting traffic", jobs::traffic(agent.clone())));
    background.spawn(vital("reloading", jobs::reload(agent.clone())));
    background.spawn(vital("notifying", notify::start(agent.clone())));
    background.spawn(vital("telling people", notify::tell_people(agent.clone())));
    background.spawn(vital("tracing", notify::trace(agent.clone())));
    if let Err(error) = agent.store.write(runs::begin).await {
        tracing::warn!(%error, "failed to record that the agent runs");
    }
    background.spawn(vital("queueing", intake::pending::take_up(agent.clone())));
    let removals = reload::complete_removals(agent.clone());
    background.spawn(removals);
    // Before anything is deployed or recorded with a key.
    rekey::resume(&agent).await;
    if let Err(error) = begin(&agent).await {
        tracing::error!("{error}; trying again, and deploying nothing until then");
        background.spawn(vital("beginning", begin_later(agent.clone())));
    }
    tracing::info!(listen = %tcp_address(&tcp), apps = agent.in_force().config.apps.len(), "serving");
    let (in_force, address) = (agent.in_force(), tcp_address(&tcp));
    // Secrets are read from files, which may be slow.
    tokio::task::spawn_blocking(move || greeting::say(&in_force.config, &address));

    tokio::select! {
        () = api::listen::tcp(tcp, router.clone()) => {}
        () = api::listen::unix(unix, router) => {}
        () = shutdown() => tracing::info!("stopping"),
    }
    // No work has to be finished here: the next start continues what a worker leaves.
    background.shutdown().await;
    agent.workers.end_all().await;
    // Otherwise the next one says that this one did not end in order.
    let _ = agent.store.write(runs::end).await;
    let _ = std::fs::remove_file(&socket);
    Ok(())
}

/// Opens the database. If the proxy has a table to serve by, waits for a database that cannot be used:
/// the disk may be full, or somebody may replace a damaged database by a copy.
async fn open(data_dir: &Path) -> Result<(Store, AgentId), Error> {
    let mut said = String::new();
    loop {
        let error = match Store::open(data_dir) {
            Ok(store) => match agent_id(&store, data_dir).await {
                Ok(id) => return Ok((store, id)),
                Err(error) => error,
            },
            Err(error) => error,
        };
        if control::disk::load(data_dir).routes.is_empty() {
            return Err(failed("failed to start the agent", &error));
        }
        let text = error.to_string();
        if said != text {
            tracing::error!(
                "{text}; the proxy serves on, but nothing can be deployed until the database can be \
                 used: `cutover doctor` says what to do"
            );
            said = text;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The agent's id. It is kept in a file too, so that an agent whose database was lost still knows its
/// network and its containers.
async fn agent_id(store: &Store, data_dir: &Path) -> crate::store::Result<AgentId> {
    let path = data_dir.join("agent.id");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let before: Option<AgentId> = text.trim().parse().ok();
    let of_file = before.clone();
    let id = store
        .write(move |db| apps::agent_id_or(db, of_file))
        .await?;
    if before.as_ref() != Some(&id)
        && let Err(error) = write_whole(&path, &format!("{id}\n"))
    {
        tracing::warn!(%error, "failed to write the agent's id to `agent.id`");
    }
    Ok(id)
}

/// Records what the file says and publishes the routes. No worker may switch before that.
async fn begin(agent: &Arc<Agent>) -> Result<(), Error> {
    reload::begin(agent)
        .await
        .map_err(|e| failed("the configuration cannot be recorded", &e))?;
    routes::publish_anew(agent)
        .await
        .map_err(|e| failed("failed to publish the routes", &e))?;
    reload::start_workers(agent).await;
    Ok(())
}

async fn begin_later(agent: Arc<Agent>) {
    loop {
        tokio::time::sleep(AGAIN).await;
        if begin(&agent).await.is_ok() {
            tracing::info!("the configuration is recorded and the routes are published");
            return;
        }
    }
}

fn failed(what: &str, cause: &(dyn std::error::Error + 'static)) -> Error {
    Error::usage(what).because(cause)
}

/// Creates the data folder, closed to other users, and ensures that no second agent uses it.
fn lock(data_dir: &Path) -> Result<File, Error> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

    let cannot = |e: std::io::Error| {
        failed(
            &format!("failed to use the data folder `{}`", data_dir.display()),
            &e,
        )
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(cannot)?;
    let mut options = File::options();
    let file = options.create(true).truncate(false).write(true).mode(0o600);
    let file = file.open(data_dir.join("lock")).map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::usage(format!(
            "another agent is already using the data folder `{}`",
            data_dir.display()
        ))),
        Err(std::fs::TryLockError::Error(error)) => Err(cannot(error)),
    }
}

async fn listen(wanted: SocketAddr) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(wanted).await;
    listener.map_err(|error| {
        let what = format!("`agent.listen`: failed to listen on `{wanted}`");
        failed(&what, &error).hint(listen_hint(&error).trim_start_matches("; "))
    })
}

fn tcp_address(listener: &TcpListener) -> String {
    listener
        .local_addr()
        .map(|address| address.to_string())
        .unwrap_or_default()
}

/// Writes the actual address to a file; it differs from the configured one if the port is 0.
fn write_address(path: &Path, address: &str) -> std::io::Result<()> {
    write_whole(path, &serde_json::json!({ "http": address }).to_string())
}

fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path)
}
