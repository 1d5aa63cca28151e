use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

use super::handover::{self, Offer};
use super::level::level;
use super::publish::{Keeping, Publisher};
use super::{Answer, Client, Command, Error, Hello, MAX_LINE, Receipt, SOCKET, Taken};
use crate::log_limit::limited;
use crate::proxy::downstream::certificates::Certificates;
use crate::proxy::options::Settings;
use crate::proxy::route::drain::drain;
use crate::proxy::route::routes::Routes;
use crate::proxy::route::table::Table;

/// The most connections at the same time; further ones wait.
const MAX_CONNECTIONS: usize = 64;
const WRITE: Duration = Duration::from_secs(10);
/// How long the agent waits for names that nobody knows: shorter than it waits for an answer.
const UNKNOWN: Duration = Duration::from_secs(10);
/// For how long, in seconds, a proxy whose successor came too late makes sure that it can be reached.
const WARY: u32 = 60;

/// What the commands on the control socket act on.
pub struct Control {
    pub routes: Arc<Routes>,
    pub certificates: Arc<Certificates>,
    pub publisher: Publisher,
    /// Where this proxy answers once a successor has its sockets.
    pub leaving_socket: PathBuf,
    /// The listening sockets, to be handed over; none once this proxy is leaving.
    pub sockets: Mutex<Vec<OwnedFd>>,
    /// The proxy that this one took over from, while that one drains.
    pub predecessor: Option<Client>,
    pub leave: watch::Sender<Option<Leave>>,
    pub settings: Settings,
    pub by_agent: bool,
    /// How long a successor may take to start serving before the handover counts as failed.
    pub handover: Duration,
    /// Held while a successor has the sockets but does not serve yet.
    pub handing_over: tokio::sync::Mutex<()>,
}

impl Control {
    /// Makes way: from now on this proxy answers under no name and occupies no port that the next one
    /// needs, while its requests in progress finish.
    pub fn stop(&self) {
        let begun = self.leave.send_if_modified(|leave| {
            let begins = leave.is_none();
            leave.get_or_insert(Leave::Stop);
            begins
        });
        if begun {
            self.sockets.lock().clear();
            let _ = std::fs::remove_file(self.leaving_socket.with_file_name(SOCKET));
        }
    }

    fn stops(&self) -> bool {
        *self.leave.borrow() == Some(Leave::Stop)
    }

    fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        self.sockets.lock().iter().map(OwnedFd::try_clone).collect()
    }
}

/// Why the proxy shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    Stop,
    /// Another proxy is serving: connections may end at their own pace.
    Replaced,
}

/// Whether a process listens at the socket.
pub fn is_answered(folder: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(folder.join(SOCKET)).is_ok()
}

/// Creates the socket with mode 0600. Replaces one that no process listens on any more or, with
/// `replace`, the running proxy's.
pub fn bind(folder: &Path, replace: bool) -> io::Result<UnixListener> {
    let path = folder.join(SOCKET);
    if !replace && is_answered(folder) {
        let why = format!(
            "another proxy is listening at `{}`; stop it first",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    }
    bind_at(&path)
}

fn bind_at(path: &Path) -> io::Result<UnixListener> {
    // Under another name until its mode is set, so that nobody else can connect before that.
    let temp = path.with_extension("new");
    let _ = std::fs::remove_file(&temp);
    let listener = UnixListener::bind(&temp)?;
    std::fs::set_permissions(&temp, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&temp, path)?;
    Ok(listener)
}

/// Answers commands on the socket for as long as the future is polled.
pub fn serve(
    listener: UnixListener,
    control: Arc<Control>,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    // Boxed, since a connection can lead to another call of `serve`.
    Box::pin(accept(listener, control))
}

async fn accept(listener: UnixListener, control: Arc<Control>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let control = control.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &control).await {
                        tracing::debug!("a control connection failed: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                limited!(
                    warn,
                    "failed to accept a control connection",
                    "failed to accept a control connection: {error}"
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, control: &Arc<Control>) -> io::Result<()> {
    // The socket's mode ensures the same, but this also holds where the folder is shared.
    let (peer, own) = (stream.peer_cred()?.uid(), rustix::process::geteuid());
    if peer != own.as_raw() && peer != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut from)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .await?;
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
        let mut answer = match serde_json::from_slice(&line) {
            // One at a time: if two successors had the sockets, both would stay.
            Ok(Command::Takeover) => match control.handing_over.try_lock() {
                Ok(_turn) if control.leave.borrow().is_none() => {
                    return hand_over(from, to, control).await;
                }
                Ok(_) => refused("the proxy is shutting down"),
                Err(_) => refused("another proxy is taking over"),
            },
            Ok(command) => carry_out(command, control).await,
            Err(error) => refused(&format!("invalid command: {error}")),
        };
        answer.push(b'\n');
        tokio::time::timeout(WRITE, to.write_all(&answer)).await??;
    }
}

/// Hands the sockets over, and shuts down once the successor is serving.
async fn hand_over(
    mut from: BufReader<OwnedReadHalf>,
    mut to: OwnedWriteHalf,
    control: &Arc<Control>,
) -> io::Result<()> {
    let socket = control.leaving_socket.clone();
    let own = inode(&socket.with_file_name(SOCKET));
    let listener = bind_at(&socket)?;
    // From here to the release there is only the table on disk, and nobody changes it.
    control.publisher.keep(Keeping::Frozen).await;
    let taken = async {
        let offer = Offer {
            socket: socket.clone(),
        };
        let sockets = control.copies()?;
        handover::give(to.as_ref(), offer, &sockets).await?;
        drop(sockets);
        let mut line = Vec::new();
        let mut limited = (&mut from).take(MAX_LINE);
        tokio::time::timeout(control.handover, limited.read_until(b'\n', &mut line)).await??;
        match serde_json::from_slice(&line)? {
            Command::Release => Ok::<_, io::Error>(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    };
    if let Err(error) = taken.await {
        tracing::warn!("the takeover failed, this proxy keeps serving: {error}");
        control.publisher.keep(Keeping::Stored).await;
        let _ = std::fs::remove_file(&socket);
        tokio::spawn(keep_name(
            socket.with_file_name(SOCKET),
            own,
            control.clone(),
        ));
        return Err(error);
    }
    control.publisher.keep(Keeping::Followed).await;
    tokio::spawn(serve(listener, control.clone()));
    control.leave.send_replace(Some(Leave::Replaced));
    // Close them: nobody would accept from those that the successor has not kept.
    control.sockets.lock().clear();
    let mut answer = done(());
    answer.push(b'\n');
    tokio::time::timeout(WRITE, to.write_all(&answer)).await?
}

/// Answers under its name again, each time that a successor which came too late has taken it: that one
/// withdraws, or has died.
async fn keep_name(name: PathBuf, mut own: Option<u64>, control: Arc<Control>) {
    for _ in 0..WARY {
        if control.leave.borrow().is_some() || control.handing_over.try_lock().is_err() {
            return;
        }
        if inode(&name) != own {
            match bind_at(&name) {
                Ok(listener) => {
                    own = inode(&name);
                    tokio::spawn(serve(listener, control.clone()));
                }
                Err(error) => tracing::error!("failed to take the control socket back: {error}"),
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|file| file.ino())
}

async fn carry_out(command: Command, control: &Control) -> Vec<u8> {
    let routes = &control.routes;
    match command {
        // An agent that adopted this proxy now would soon lose it.
        Command::Hello if control.stops() => refused("the proxy is shutting down"),
        Command::Hello => done(Hello {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            generation: routes.generation(),
            settings: Some(control.settings.clone()),
            by_agent: control.by_agent,
            closed_links: routes.closed_links(),
        }),
        Command::Publish(table) => match publish(table, control).await {
            Ok(generation) => done(generation),
            Err(why) => refused(&why),
        },
        Command::Drain {
            app,
            before_generation,
            requests_ms,
            websockets_ms,
        } => {
            let requests = Duration::from_millis(requests_ms);
            let websockets = Duration::from_millis(websockets_ms);
            let own = drain(routes, &app, before_generation, requests, websockets);
            let before = async {
                match &control.predecessor {
                    Some(old) => {
                        old.drain(&app, before_generation, requests, websockets)
                            .await
                    }
                    None => Ok(Receipt::default()),
                }
            };
            match tokio::join!(own, before) {
                (Ok(own), Ok(before)) => done(own.and(before)),
                // The old proxy has exited in the meantime, so none of its requests is in progress any
                // more.
                (Ok(own), Err(Error::Unreachable { .. } | Error::Broken(_))) => done(own),
                (Ok(_), Err(error)) => refused(&error.to_string()),
                (Err(error), _) => refused(&error.to_string()),
            }
        }
        Command::Stats => done(routes.stats()),
        Command::Tallies { app } => done(routes.tallies(&app)),
        Command::Certificates => match reload_certificates(control).await {
            Ok(()) => done(()),
            Err(error) => refused(&error.to_string()),
        },
        Command::UnknownNames => done(control.certificates.unknown.take(UNKNOWN).await),
        Command::LogLevel { wanted } => match level(wanted) {
            Ok(level) => done(level),
            Err(why) => refused(&why),
        },
        Command::Spans => done(spans(control).await),
        Command::Table => done(&*routes.table()),
        Command::Stop => {
            control.stop();
            done(())
        }
        Command::Takeover | Command::Release => refused("not valid at this point"),
    }
}

/// Publishes the table here and, while it drains, at the proxy before this one.
async fn publish(table: Table, control: &Control) -> Result<u64, String> {
    let copy = control.predecessor.as_ref().map(|old| (old, table.clone()));
    let published = control.publisher.publish(table).await;
    let generation = published.map_err(|error| error.to_string())?;
    match copy {
        Some((old, table)) => match old.publish(&table).await {
            Ok(_) | Err(Error::Unreachable { .. } | Error::Broken(_)) => Ok(generation),
            Err(error) => Err(error.to_string()),
        },
        None => Ok(generation),
    }
}

/// Also those of the proxy before this one, while it finishes its requests.
async fn spans(control: &Control) -> Taken {
    let mut taken = control.routes.spans.take();
    if let Some(old) = &control.predecessor
        && !taken.more
        && let Ok(before) = old.spans().await
    {
        taken.spans.extend(before.spans);
        taken.lost += before.lost;
        taken.more = before.more;
    }
    taken
}

/// Also of the proxy before this one, which may still accept connections.
async fn reload_certificates(control: &Control) -> Result<(), tokio::task::JoinError> {
    if let Some(old) = &control.predecessor {
        // It may be gone, or of a version that looks by itself.
        let _ = old.reload_certificates().await;
    }
    let certificates = control.certificates.clone();
    tokio::task::spawn_blocking(move || certificates.refresh()).await
}

fn done(value: impl Serialize) -> Vec<u8> {
    serde_json::to_vec(&Answer::Done(value))
        .unwrap_or_else(|error| refused(&format!("failed to serialize the reply: {error}")))
}

fn refused(why: &str) -> Vec<u8> {
    serde_json::to_vec(&Answer::<()>::Refused(why.into())).expect("a string becomes JSON")
}
