//! The proxy's life: bind, load, serve, leave.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ipnet::IpNet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::sync::watch;

use crate::proxy::access_log::AccessLog;
use crate::proxy::control::{self, Client, Control, Leave, handover};
use crate::proxy::downstream::client_io::Limits;
use crate::proxy::downstream::limits::Places;
use crate::proxy::downstream::listen::{Listening, Stage, accept};
use crate::proxy::downstream::tls;
use crate::proxy::route::routes::Routes;
use crate::proxy::sockets::{Sockets, activated};
use crate::proxy::watch::SWEEP;
use crate::proxy::worker;

/// The file in the data folder that holds the addresses in use.
pub const ADDRESSES: &str = "proxy.addr";

/// How the proxy is to run.
#[derive(Clone, Debug)]
pub struct Options {
    pub http: SocketAddr,
    pub https: Option<SocketAddr>,
    pub data_dir: PathBuf,
    /// Of the event loops that carry requests.
    pub threads: usize,
    pub limits: Limits,
    /// More are closed at once.
    pub max_connections: usize,
    /// Of one client address, unless it is trusted.
    pub max_per_client: usize,
    /// Every connection to the plain port begins with a PROXY header, version 1 or 2.
    pub proxy_protocol: bool,
    /// The same for those to the TLS port.
    pub proxy_protocol_tls: bool,
    /// Where each request gets a line. Absent: nowhere.
    pub access_log: Option<PathBuf>,
    /// How long requests may take to finish when the proxy is told to leave.
    pub grace: Duration,
    /// `NAME.pem` and `NAME.key` for each certificate; read again when they change.
    pub certificates: PathBuf,
    /// Proxies in front, whose X-Forwarded-For and the like are believed.
    pub trusted: Vec<IpNet>,
    /// Take the sockets over from the proxy that runs, if there is one.
    pub takeover: bool,
}

impl Options {
    /// With everything else as it is best for most.
    pub fn new(http: SocketAddr, https: Option<SocketAddr>, data_dir: PathBuf) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
        Self {
            http,
            https,
            certificates: data_dir.join("certs"),
            data_dir,
            trusted: Vec::new(),
            threads: cores.clamp(1, worker::MAX),
            limits: Limits {
                head_ms: 15_000,
                idle_ms: 75_000,
                write_ms: 60_000,
            },
            max_connections: 100_000,
            max_per_client: 4_096,
            proxy_protocol: false,
            proxy_protocol_tls: false,
            access_log: None,
            grace: Duration::from_secs(30),
            takeover: false,
        }
    }
}

/// Why the proxy does not run.
#[derive(Debug, Error)]
pub enum RunError {
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("the control socket in `{folder}` cannot be made: {source}")]
    Control { folder: PathBuf, source: io::Error },
    #[error("`{path}` cannot be written: {source}")]
    Addresses { path: PathBuf, source: io::Error },
    #[error("the access log `{path}` cannot be opened: {source}")]
    AccessLog { path: PathBuf, source: io::Error },
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("a thread cannot be started: {0}")]
    Thread(#[source] io::Error),
}

/// Serves until `shutdown` or [`control::Client::stop`], then lets what is under way finish.
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
    // Where a proxy is replaced, its name is taken only when nothing can go wrong any more: until
    // then the agent has to find the old one.
    let own = match taken {
        None => Some(control::bind(&folder, false).map_err(failed)?),
        Some(_) => None,
    };
    let inherited = match &mut taken {
        Some(taken) => std::mem::take(&mut taken.listeners),
        None => activated(),
    };
    let sockets = Sockets::open(inherited, taken.is_some(), &options).await?;
    let certificates = tls::Certificates::load(options.certificates.clone());
    let load = folder.clone();
    let routes = tokio::task::spawn_blocking(move || Routes::load(load))
        .await
        .map_err(|error| failed(io::Error::other(error)))?;
    let mut routes = routes;
    if let Some(path) = options.access_log.clone() {
        let log = AccessLog::open(path.clone());
        let log = log.map_err(|source| RunError::AccessLog { path, source })?;
        routes.access_log = Some(Arc::new(log));
    }
    let routes = Arc::new(routes);

    let shared = Arc::new(Listening {
        routes: routes.clone(),
        limits: options.limits,
        places: Places::new(options.max_connections, options.max_per_client),
        proxy_protocol: options.proxy_protocol,
        proxy_protocol_tls: options.proxy_protocol_tls,
        stage: Stage::default(),
        tls: match options.https {
            Some(_) => Some(tls::acceptor(certificates.clone())?),
            None => None,
        },
        trusted: options.trusted.clone(),
    });
    let stop = watch::Sender::new(false);
    let count = options.threads.max(1);
    let threads = (0..count)
        .map(|slot| {
            let its = sockets.of_thread(slot, count)?;
            thread(slot, its, &shared, stop.subscribe(), options.grace)
        })
        .collect::<io::Result<Vec<_>>>()
        .map_err(RunError::Thread)?;
    let socket = match own {
        Some(socket) => socket,
        None => control::bind(&folder, true).map_err(failed)?,
    };
    let (address, _) =
        write_addresses(&folder, &sockets).map_err(|source| RunError::Addresses {
            path: folder.join(ADDRESSES),
            source,
        })?;
    tracing::info!(%address, generation = routes.generation(), "the proxy serves");

    let leaving_socket = leaving_socket(&folder);
    let control = Arc::new(Control {
        routes: routes.clone(),
        leaving_socket: leaving_socket.clone(),
        sockets: sockets.copies().map_err(failed)?.into(),
        predecessor: taken.as_ref().map(|t| Client::new(t.predecessor.clone())),
        leave: watch::Sender::new(None),
    });
    if let Some(taken) = taken {
        let released = tokio::task::spawn_blocking(|| taken.release()).await;
        if let Ok(Err(error)) = released {
            tracing::warn!("the proxy before did not answer as it was let go: {error}");
        }
    }
    let house = {
        let answer = control::serve(socket, control.clone());
        let keep = keep(routes.clone(), certificates);
        tokio::spawn(async move { tokio::join!(answer, keep) })
    };
    let mut told = control.leave.subscribe();
    let why = tokio::select! {
        () = shutdown => {
            control.stop();
            Leave::Stop
        }
        why = told.wait_for(Option::is_some) => why.ok().and_then(|why| *why).unwrap_or(Leave::Stop),
    };
    tracing::info!(
        "the proxy leaves: no new connection, {} requests to finish",
        routes.under_way()
    );
    drop(sockets);
    stop.send_replace(true);
    shared.stage.leave();
    routes.close_streams(options.grace / 2);
    if why == Leave::Replaced {
        // An idle connection may be about to bring a request: its client finds out that this proxy
        // leaves with the next answer, not by a request that nobody reads.
        let patience = tokio::time::Instant::now() + options.grace;
        while busy(&shared) && tokio::time::Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    shared.stage.close();
    routes.watches.wake_all();
    let joined = tokio::task::spawn_blocking(move || {
        for thread in threads {
            let _ = thread.join();
        }
    });
    let _ = joined.await;
    house.abort();
    if why == Leave::Replaced {
        let _ = std::fs::remove_file(leaving_socket);
    }
    Ok(())
}

/// Unlike that of any other proxy in the folder, also of one in the same process.
fn leaving_socket(folder: &Path) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Relaxed);
    folder.join(format!("proxy.{}-{number}.sock", std::process::id()))
}

async fn take_over(folder: &Path) -> Option<handover::Taken> {
    let from = folder.to_path_buf();
    match tokio::task::spawn_blocking(move || handover::take(&from)).await {
        Ok(Ok(taken)) => Some(taken),
        Ok(Err(error)) => {
            tracing::info!("there is no proxy to take over from: {error}");
            None
        }
        Err(_) => None,
    }
}

/// A connection is a file, twice while it is forwarded: the usual 1,024 are soon used up.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(
            "the limit of open files stays at {:?}: {error}",
            limit.current
        );
    }
}

/// An event loop of its own that accepts its own connections.
fn thread(
    slot: usize,
    sockets: Sockets,
    shared: &Arc<Listening>,
    stop: watch::Receiver<bool>,
    grace: Duration,
) -> io::Result<JoinHandle<()>> {
    let shared = shared.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name(format!("proxy-{slot}"))
        .spawn(move || {
            worker::set_slot(slot);
            runtime.block_on(async {
                let sockets = sockets
                    .plain
                    .into_iter()
                    .map(|socket| (socket, false))
                    .chain(sockets.tls.into_iter().map(|socket| (socket, true)));
                let accepting = sockets.filter_map(|(socket, secure)| {
                    let socket = listener(socket)?;
                    Some(accept(socket, secure, shared.clone(), stop.clone()))
                });
                join_all(accepting).await;
                // The connections of this thread live in its runtime: it stays for them.
                let mut deadline = Instant::now() + grace;
                while busy(&shared) && Instant::now() < deadline {
                    if !shared.stage.is_closing() {
                        deadline = Instant::now() + grace;
                    }
                    shared.routes.watches.wake_all();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        })
}

fn listener(listener: TcpListener) -> Option<tokio::net::TcpListener> {
    tokio::net::TcpListener::from_std(listener)
        .inspect_err(|error| tracing::error!("a thread cannot listen: {error}"))
        .ok()
}

fn busy(shared: &Listening) -> bool {
    shared.places.taken() > 0 || shared.routes.under_way() > 0
}

/// Deadlines, and what has become old.
async fn keep(routes: Arc<Routes>, certificates: Arc<tls::Certificates>) {
    let mut tick = tokio::time::interval(SWEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for n in 0_u64.. {
        tick.tick().await;
        routes.watches.sweep();
        if n % 5 == 0 {
            routes.tidy();
        }
        if n % 50 == 0 {
            let certificates = certificates.clone();
            let _ = tokio::task::spawn_blocking(move || certificates.refresh()).await;
        }
    }
}

fn write_addresses(
    folder: &Path,
    sockets: &Sockets,
) -> io::Result<(SocketAddr, Option<SocketAddr>)> {
    let (http, https) = sockets.addresses()?;
    let text = serde_json::json!({ "http": http, "https": https }).to_string();
    let temp = folder.join("proxy.addr.new");
    std::fs::write(&temp, text)?;
    std::fs::rename(temp, folder.join(ADDRESSES))?;
    Ok((http, https))
}
