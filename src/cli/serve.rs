//! `cutover serve`: the agent. The only place that wires things together.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::shutdown::shutdown;
use super::{Error, Global, configuration};
use crate::api::{self, Api, Bodies, Health, Refusals, WebhookSecrets, auth::Tokens};
use crate::config::Config;
use crate::deploy::{Agent, intake, reload, routes};
use crate::engine::Engine;
use crate::jobs;
use crate::notify;
use crate::proxy::control::{self, Client};
use crate::store::{Store, apps};
use crate::vital::vital;

mod data_plane;

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
    let _lock = lock(&data_dir)?;

    let store = Store::open(&data_dir).map_err(|e| failed("failed to start the agent", &e))?;
    let id = store.write(apps::agent_id).await;
    let id = id.map_err(|e| failed("failed to start the agent", &e))?;
    let engine = Engine::docker(loaded.config.docker.host.clone(), id.clone(), &data_dir);
    let proxy = Client::new(data_dir.join(control::SOCKET));

    let data_plane = data_plane::DataPlane::new(proxy.clone(), path.clone(), data_dir.clone());
    data_plane.ensure().await?;
    let agent = Arc::new(Agent::new(loaded, id, store, engine, proxy.clone()));
    reload::begin(&agent)
        .await
        .map_err(|e| failed("the configuration cannot be recorded", &e))?;
    routes::publish_anew(&agent)
        .await
        .map_err(|e| failed("failed to publish the routes", &e))?;

    let tokens = Tokens::load(&data_dir);
    let tokens = tokens.map_err(|e| failed("failed to read or create the API's token", &e))?;
    let api = Arc::new(Api {
        agent: agent.clone(),
        tokens,
        health: Health::default(),
        bodies: Bodies::default(),
        refusals: Refusals::default(),
        webhook_secrets: WebhookSecrets::default(),
    });
    let router = api::router(api.clone());
    let tcp = listen(&agent.in_force().config, &data_dir).await?;
    let socket = data_dir.join("agent.sock");
    let unix = api::listen::bind_unix(&socket)
        .map_err(|e| failed(&format!("failed to listen on `{}`", socket.display()), &e))?;

    let tell_refusals = api::refusals::tell(api.clone());
    let mut background = JoinSet::new();
    background.spawn(vital("telling of refusals", tell_refusals));
    background.spawn(vital(
        "keeping the proxy",
        data_plane::keep(data_plane, agent.clone()),
    ));
    background.spawn(vital("sweeping", jobs::sweep(agent.clone())));
    background.spawn(vital("pruning", jobs::prune(agent.clone())));
    background.spawn(vital("reloading", jobs::reload(agent.clone())));
    background.spawn(vital("notifying", notify::start(agent.clone())));
    background.spawn(vital("queueing", intake::pending::take_up(agent.clone())));
    let removals = reload::complete_removals(agent.clone());
    background.spawn(removals);
    reload::start_workers(&agent).await;
    tracing::info!(listen = %tcp_address(&tcp), apps = agent.in_force().config.apps.len(), "serving");

    tokio::select! {
        () = api::listen::tcp(tcp, router.clone()) => {}
        () = api::listen::unix(unix, router) => {}
        () = shutdown() => tracing::info!("stopping"),
    }
    // Nothing has to be finished here: what a worker leaves is taken up at the next start.
    background.shutdown().await;
    agent.workers.end_all().await;
    let _ = std::fs::remove_file(&socket);
    if !args.leave_proxy
        && let Err(error) = proxy.stop().await
    {
        tracing::warn!(%error, "failed to stop the proxy");
    }
    Ok(())
}

fn failed(what: &str, cause: &(dyn std::error::Error + 'static)) -> Error {
    Error::usage(what).because(cause)
}

/// Makes the data folder, closed to others, and makes sure that no second agent uses it.
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

/// Binds the configured address and writes down the real one, for port 0.
async fn listen(config: &Config, data_dir: &Path) -> Result<TcpListener, Error> {
    let wanted = config.agent.listen;
    let listener = TcpListener::bind(wanted).await;
    let listener = listener.map_err(|e| failed(&format!("failed to listen on `{wanted}`"), &e))?;
    let written = write_address(&data_dir.join("agent.addr"), &tcp_address(&listener));
    written.map_err(|e| failed("failed to write the agent's address", &e))?;
    Ok(listener)
}

fn tcp_address(listener: &TcpListener) -> String {
    listener
        .local_addr()
        .map(|address| address.to_string())
        .unwrap_or_default()
}

fn write_address(path: &Path, address: &str) -> std::io::Result<()> {
    let temporary: PathBuf = path.with_extension("addr.new");
    let text = serde_json::json!({ "http": address }).to_string();
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path)
}
