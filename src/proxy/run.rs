//! The life of the proxy: binds, loads, serves and leaves.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::Instant;

use super::access_log::AccessLog;
use super::control::publish::Publisher;
use super::control::{self, Client, Control, Leave, disk, handover};
use super::downstream::certificates::Certificates;
use super::downstream::limits::Places;
use super::downstream::server::{Server, Stage};
use super::downstream::tls;
use super::exchange::forward::Gateway;
use super::exchange::front::Proxies;
use super::exchange::redirect::Door;
use super::links;
use super::log_file;
use super::options::{ADDRESSES, Options};
use super::route::routes::Routes;
use super::sockets::{ListenError, Sockets, activated};
use super::threads;
use super::watch::SWEEP;

/// How often to try again to create a control socket that could not be created.
const SOCKET_AGAIN: Duration = Duration::from_secs(1);

/// Why the proxy does not run.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("failed to create the control socket in `{folder}`: {source}")]
    Control { folder: PathBuf, source: io::Error },
    #[error("the running proxy did not wait any longer, and keeps serving; try again")]
    Withdrawn,
    #[error("failed to set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("failed to start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// Serves until `shutdown` or [`control::Client::stop`], then lets the requests in progress finish.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let folder = options.data_dir.clone();
    let failed = |source| RunError::Control {
        folder: folder.clone(),
        source,
    };
    raise_file_limit();
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let mut taken = match options.takeover {
        true => take_over(&folder).await,
        false => None,
    };
    // When a proxy is replaced, its name is taken only when nothing can go wrong any more: until then
    // the agent must find the old one.
    let own = match taken {
        None => own_socket(&folder).map_err(failed)?,
        Some(_) => None,
    };
    let inherited = match &mut taken {
        Some(taken) => std::mem::take(&mut taken.listeners),
        None => activated(),
    };
    let sockets = Sockets::open(inherited, taken.is_some(), &options).await?;
    let folders = options.certificates();
    let certificates = tokio::task::spawn_blocking(|| Certificates::load(folders))
        .await
        .map_err(|error| failed(io::Error::other(error)))?;
    let load = folder.clone();
    let table = tokio::task::spawn_blocking(move || disk::load(&load))
        .await
        .map_err(|error| failed(io::Error::other(error)))?;
    let routes = Arc::new(Routes::new(table, Arc::default()));
    let (address, https) = sockets.addresses().map_err(failed)?;
    let server = Arc::new(server(&options, &routes, &certificates, https)?);
    let stop = watch::Sender::new(false);
    let threads = start_threads(&options, &sockets, &server, &stop).map_err(RunError::Thread)?;
    let links = tokio::spawn(links::serve(server.clone(), stop.subscribe()));
    if taken.as_ref().is_some_and(|taken| !taken.is_offered()) {
        // The takeover took too long, and the old proxy keeps serving: two proxies would answer under
        // one name.
        stop.send_replace(true);
        leave(&server, Leave::Stop, options.grace, threads).await;
        return Err(RunError::Withdrawn);
    }
    let socket = match &taken {
        None => own,
        Some(_) => Some(control::bind(&folder, true).map_err(failed)?),
    };
    // Serving does not depend on whether files can be written.
    if let Err(error) = write_addresses(&folder, &sockets) {
        tracing::error!(%error, "failed to write the proxy's addresses to `{ADDRESSES}`");
    }
    tracing::info!(%address, generation = routes.generation(), "the proxy is serving");

    let leaving_socket = leaving_socket(&folder);
    let control = Arc::new(Control {
        routes: routes.clone(),
        certificates: certificates.clone(),
        publisher: Publisher::new(folder.clone(), routes.clone()),
        leaving_socket: leaving_socket.clone(),
        sockets: sockets.copies().map_err(failed)?.into(),
        predecessor: taken.as_ref().map(|t| Client::new(t.predecessor.clone())),
        leave: watch::Sender::new(None),
        settings: options.settings(),
        by_agent: options.by_agent,
        handover: options.handover,
        handing_over: Default::default(),
    });
    if let Some(taken) = taken {
        let (before, pid) = (Client::new(taken.predecessor.clone()), taken.pid());
        let released = tokio::task::spawn_blocking(|| taken.release()).await;
        if let Ok(Err(error)) = released {
            tracing::warn!("the previous proxy did not confirm the takeover: {error}");
            if serves_on(&before, pid).await {
                drop(sockets);
                stop.send_replace(true);
                leave(&server, Leave::Stop, options.grace, threads).await;
                return Err(RunError::Withdrawn);
            }
        }
    }
    let house = {
        let (folder, control) = (folder.clone(), control.clone());
        let keep = keep(routes.clone(), certificates, folder.clone());
        let answer = async move {
            let socket = match socket {
                Some(socket) => socket,
                None => later_socket(&folder).await,
            };
            control::serve(socket, control).await;
        };
        tokio::spawn(async move { tokio::join!(answer, keep) })
    };
    let why = until_told(&control, shutdown).await;
    tracing::info!(
        "the proxy is shutting down: no new connections are accepted; requests to finish: {}",
        routes.under_way()
    );
    drop(sockets);
    stop.send_replace(true);
    leave(&server, why, options.grace, threads).await;
    links.abort();
    house.abort();
    if why == Leave::Replaced {
        let _ = std::fs::remove_file(leaving_socket);
    }
    Ok(())
}

/// The control socket. `None` if it cannot be created at the moment: serving does not depend on it. An
/// error if another proxy listens there.
fn own_socket(folder: &Path) -> io::Result<Option<UnixListener>> {
    match control::bind(folder, false) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if control::is_answered(folder) => Err(error),
        Err(error) => {
            tracing::error!(
                "failed to create the control socket in `{}`: {error}; serving by the last table, but no \
                 agent can reach this proxy until the socket can be created",
                folder.display()
            );
            Ok(None)
        }
    }
}

/// Creates the control socket as soon as that is possible.
async fn later_socket(folder: &Path) -> UnixListener {
    loop {
        tokio::time::sleep(SOCKET_AGAIN).await;
        if let Ok(socket) = control::bind(folder, false) {
            tracing::info!("created the control socket");
            return socket;
        }
    }
}

/// Whether the previous proxy, which did not confirm that it leaves, keeps serving: it lives, and does
/// not answer where it would after its release.
async fn serves_on(before: &Client, pid: Option<Pid>) -> bool {
    let lives = pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok());
    lives && before.hello().await.is_err()
}

fn server(
    options: &Options,
    routes: &Arc<Routes>,
    certificates: &Arc<Certificates>,
    https: Option<SocketAddr>,
) -> Result<Server<Gateway>, RunError> {
    let access_log = options.access_log.clone().map(AccessLog::open);
    let access_log = access_log.transpose().map_err(RunError::Thread)?;
    Ok(Server {
        handler: Gateway {
            routes: routes.clone(),
            access_log: access_log.map(Arc::new),
            proxies: Proxies {
                trusted: options.trusted.clone(),
                client_ip_header: options.client_ip_header.clone(),
            },
            folder: options.data_dir.clone(),
            door: https.map(|https| Door {
                certificates: certificates.clone(),
                port: https.port(),
            }),
        },
        watches: routes.watches.clone(),
        limits: options.limits,
        places: Places::new(
            options.max_connections.min(affordable_connections()),
            options.max_per_client,
        ),
        proxy_protocol: options.proxy_protocol,
        proxy_protocol_tls: options.proxy_protocol_tls,
        stage: Stage::default(),
        tls: match options.https {
            Some(_) => Some(tls::acceptor(certificates.clone())?),
            None => None,
        },
        trusted: options.trusted.clone(),
    })
}

fn start_threads(
    options: &Options,
    sockets: &Sockets,
    server: &Arc<Server<Gateway>>,
    stop: &watch::Sender<bool>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let count = options.threads.max(1);
    let start = |slot| {
        let its = sockets.of_thread(slot, count)?;
        threads::start(slot, its, server, stop.subscribe(), options.grace)
    };
    (0..count).map(start).collect()
}

async fn until_told(control: &Control, shutdown: impl Future<Output = ()>) -> Leave {
    let mut told = control.leave.subscribe();
    tokio::select! {
        () = shutdown => {
            control.stop();
            Leave::Stop
        }
        why = told.wait_for(Option::is_some) => why.ok().and_then(|why| *why).unwrap_or(Leave::Stop),
    }
}

/// Lets the requests in progress finish, for `grace` at most.
async fn leave(
    server: &Server<Gateway>,
    why: Leave,
    grace: Duration,
    threads: Vec<JoinHandle<()>>,
) {
    server.stage.leave();
    server.handler.routes.close_streams(grace / 2);
    if why == Leave::Replaced {
        // An idle connection may be about to bring a request. Its client learns from the next response
        // that this proxy is leaving, instead of sending a request that nobody reads.
        let patience = Instant::now() + grace;
        while threads::is_busy(server) && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    server.stage.close();
    server.watches.wake_all();
    let joined = tokio::task::spawn_blocking(move || {
        for thread in threads {
            let _ = thread.join();
        }
    });
    let _ = joined.await;
}

/// A name that no other proxy in the folder has, not even one in the same process.
fn leaving_socket(folder: &Path) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Relaxed);
    folder.join(format!("proxy.{}-{number}.sock", std::process::id()))
}

async fn take_over(folder: &Path) -> Option<handover::Takeover> {
    let from = folder.to_path_buf();
    match tokio::task::spawn_blocking(move || handover::take(&from)).await {
        Ok(Ok(taken)) => Some(taken),
        Ok(Err(error)) => {
            tracing::info!("no proxy to take over from: {error}");
            None
        }
        Err(_) => None,
    }
}

/// Each connection uses a file descriptor, and two while it is forwarded: the usual limit of 1,024 is
/// soon reached.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(
            "failed to raise the limit of open files from {:?}: {error}",
            limit.current
        );
    }
}

/// As many connections as the limit of open files allows: each may need a second descriptor for the
/// app, and some are left for the control socket and files.
fn affordable_connections() -> usize {
    const RESERVE: u64 = 32;
    let limit = getrlimit(Resource::Nofile).current;
    let connections = limit.map_or(u64::MAX, |limit| limit.saturating_sub(RESERVE) / 2);
    usize::try_from(connections).unwrap_or(usize::MAX).max(1)
}

/// Sweeps deadlines, closes what has been idle for too long, and reloads certificates.
async fn keep(routes: Arc<Routes>, certificates: Arc<Certificates>, folder: PathBuf) {
    let mut tick = tokio::time::interval(SWEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looked = None;
    for n in 0_u64.. {
        tick.tick().await;
        routes.watches.sweep();
        if n % 5 == 0 {
            routes.tidy();
        }
        if n % 50 == 0 {
            let certificates = certificates.clone();
            let folder = folder.clone();
            let files = move || {
                certificates.refresh();
                if let Err(error) = log_file::bound_own(&folder) {
                    tracing::warn!("failed to set the full log aside: {error}");
                }
            };
            // Not awaited: a disk that hangs must not stop the deadlines.
            if looked
                .as_ref()
                .is_none_or(tokio::task::JoinHandle::is_finished)
            {
                looked = Some(tokio::task::spawn_blocking(files));
            }
        }
    }
}

fn write_addresses(folder: &Path, sockets: &Sockets) -> io::Result<()> {
    let (http, https) = sockets.addresses()?;
    let text = serde_json::json!({ "http": http, "https": https }).to_string();
    let temp = folder.join("proxy.addr.new");
    std::fs::write(&temp, text)?;
    std::fs::rename(temp, folder.join(ADDRESSES))
}
