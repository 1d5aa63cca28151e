//! The server in the images of apps of `kind = "static"`: files over HTTP/1.1, on nothing but std, which
//! `build.rs` links statically so that its image is `FROM scratch`.
//!
//! ```text
//! site FOLDER [--fallback FILE] [--immutable PATTERN]…
//! ```
//!
//! It stands behind Cutover's proxy, which has TLS, HTTP/2, the access log and the limits. It listens at
//! `PORT`, and ends on SIGTERM once the answers that it has begun are sent.

use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

mod answer;
mod condition;
mod date;
mod files;
mod kind;
mod request;

use files::Site;

/// How many clients may be connected at once, each of whom has a thread.
const CONNECTIONS: usize = 4096;
const STACK: usize = 128 << 10;
/// A client that neither sends nor takes anything for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);

const SIGTERM: i32 = 15;
const SHUT_RDWR: i32 = 2;

/// The listening socket, for whoever gets the signal; -1: none, or it is time to end.
static LISTENER: AtomicI32 = AtomicI32::new(-1);
static OPEN: AtomicUsize = AtomicUsize::new(0);
/// Answers that are being sent.
static BUSY: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    fn shutdown(socket: i32, how: i32) -> i32;
}

/// Ends the accepting of connections, which is all that a signal handler may do.
extern "C" fn end(_: i32) {
    let socket = LISTENER.swap(-1, SeqCst);
    // SAFETY: `shutdown` is safe in a signal handler, and the socket is never closed.
    unsafe { shutdown(socket, SHUT_RDWR) };
}

fn main() {
    let site = Arc::new(arguments(std::env::args().skip(1)).unwrap_or_else(|why| {
        eprintln!("{why}");
        exit(2)
    }));
    let port = std::env::var("PORT").ok();
    let port = port.and_then(|it| it.parse().ok()).unwrap_or(8080u16);
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap_or_else(|error| {
        eprintln!("cannot listen on port {port}: {error}");
        exit(1)
    });
    let port = listener.local_addr().map_or(port, |it| it.port());
    println!("serving on port {port}");
    LISTENER.store(listener.as_raw_fd(), SeqCst);
    // SAFETY: the handler touches atomics and calls `shutdown`.
    unsafe { signal(SIGTERM, end) };
    while LISTENER.load(SeqCst) >= 0 {
        match listener.accept() {
            Ok((connection, _)) => take(&site, connection),
            // Out of files, say.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
    while BUSY.load(SeqCst) > 0 {
        thread::sleep(Duration::from_millis(5));
    }
}

fn arguments(mut all: impl Iterator<Item = String>) -> Result<Site, String> {
    let root = PathBuf::from(all.next().ok_or("which folder?")?);
    let root = root
        .canonicalize()
        .map_err(|error| format!("{}: {error}", root.display()))?;
    let (mut fallback, mut immutable) = (None, Vec::new());
    while let Some(name) = all.next() {
        let value = all.next().ok_or_else(|| format!("{name}: which?"))?;
        match name.as_str() {
            "--fallback" => fallback = Some(value),
            "--immutable" => immutable.push(value),
            _ => return Err(format!("{name}: unknown")),
        }
    }
    Ok(Site::new(root, fallback, immutable))
}

fn take(site: &Arc<Site>, mut connection: TcpStream) {
    if OPEN.fetch_add(1, SeqCst) >= CONNECTIONS {
        OPEN.fetch_sub(1, SeqCst);
        let _ = connection.set_write_timeout(Some(Duration::from_millis(50)));
        let _ = connection.write_all(
            b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        );
        return;
    }
    let site = site.clone();
    let serving = thread::Builder::new().stack_size(STACK).spawn(move || {
        // A connection that ends in an error is the client's to notice.
        let _ = serve(&site, connection);
        OPEN.fetch_sub(1, SeqCst);
    });
    if serving.is_err() {
        OPEN.fetch_sub(1, SeqCst);
    }
}

/// Counts an answer until it is sent or given up.
struct Busy;

impl Busy {
    fn new() -> Self {
        BUSY.fetch_add(1, SeqCst);
        Self
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.fetch_sub(1, SeqCst);
    }
}

fn serve(site: &Site, mut connection: TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(SILENCE))?;
    connection.set_write_timeout(Some(SILENCE))?;
    let mut input = BufReader::new(connection.try_clone()?);
    while let Some(request) = request::read(&mut input)? {
        let busy = Busy::new();
        let goes_on = match request {
            Ok(request) => {
                let stays = request.keep_alive && LISTENER.load(SeqCst) >= 0;
                answer::answer(site, &request, stays, &mut connection)?;
                stays
            }
            Err(status) => {
                answer::refuse(status, &mut connection)?;
                false
            }
        };
        drop(busy);
        if !goes_on {
            return hang_up(input, &connection);
        }
    }
    Ok(())
}

/// What was not read would take the answer back on its way.
fn hang_up(input: impl Read, connection: &TcpStream) -> io::Result<()> {
    connection.shutdown(Shutdown::Write)?;
    connection.set_read_timeout(Some(Duration::from_secs(1)))?;
    io::copy(&mut input.take(1 << 20), &mut io::sink()).map(drop)
}
