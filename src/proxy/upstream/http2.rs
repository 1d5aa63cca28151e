//! HTTP/2 connections to one target of one share object, each used by many requests at the same time.
//! Like a [`super::pool::Pool`], they are dropped with their share.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::request_body::RequestBody;
use crate::proxy::watch::now_ms;
use crate::proxy::worker;

/// The most concurrent requests on one connection; further ones open another connection.
const STREAMS: usize = 64;
/// The flow-control window of one stream, in bytes. The connection's window has room for all of its
/// streams, so that a client that does not read its response blocks no other one.
const WINDOW: u32 = 64 << 10;
/// How often a connection with requests in progress is pinged.
const PING: Duration = Duration::from_secs(20);

/// How long an app may take to send its SETTINGS, which come first on a connection.
const SETTINGS: Duration = Duration::from_secs(1);

/// One list for each thread, so that a request and its connection stay on one core.
#[derive(Default)]
pub struct Multiplexed([Mutex<Vec<Arc<Shared>>>; worker::MAX]);

type Connection = http2::Connection<TokioIo<TcpStream>, RequestBody, TokioExecutor>;

struct Shared {
    /// Knows the app's settings. The connection's own task holds it, and it is dropped when that ends:
    /// the connection is closed then.
    connection: Weak<Mutex<Connection>>,
    made: Instant,
    sender: http2::SendRequest<RequestBody>,
    /// The number of requests in progress.
    streams: AtomicUsize,
    /// When the last one ended, in `now_ms` time.
    idle_since: AtomicU64,
}

/// One request's stream on a connection.
pub struct Lease {
    pub sender: http2::SendRequest<RequestBody>,
    /// Whether the connection has carried a request before.
    pub reused: bool,
    /// The body of the response, once there is one.
    pub answer: Option<Incoming>,
    /// The stream itself, once it has become a WebSocket.
    pub tunnel: Option<OnUpgrade>,
    shared: Arc<Shared>,
}

impl Lease {
    fn new(shared: &Arc<Shared>, reused: bool) -> Self {
        shared.streams.fetch_add(1, Relaxed);
        Self {
            sender: shared.sender.clone(),
            reused,
            answer: None,
            tunnel: None,
            shared: shared.clone(),
        }
    }

    /// Whether the app accepts WebSockets (RFC 8441), as its SETTINGS say; on a new connection, waits
    /// for those.
    pub async fn takes_websockets(&self) -> bool {
        while !self.shared.offers_websockets() {
            if self.shared.made.elapsed() > SETTINGS || self.sender.is_closed() {
                return false;
            }
            // There is no event for their arrival.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.idle_since.store(now_ms(), Relaxed);
        self.shared.streams.fetch_sub(1, Relaxed);
    }
}

impl Multiplexed {
    /// A stream on a connection that has room and, if it has no requests in progress, has been idle for
    /// less than `at_most`.
    pub fn take(&self, at_most: Duration) -> Option<Lease> {
        let mut open = self.0[worker::slot()].lock();
        open.retain(|shared| !shared.sender.is_closed());
        let free = |shared: &&Arc<Shared>| match shared.streams.load(Relaxed) {
            0 => shared.idle_for() < at_most.as_millis() as u64,
            streams => streams < STREAMS,
        };
        open.iter()
            .find(free)
            .map(|shared| Lease::new(shared, true))
    }

    /// A stream on a new connection, which later requests share.
    /// `longest`: how long a head or trailers of the app may be, in bytes.
    pub async fn connect(
        &self,
        target: SocketAddr,
        limit: Duration,
        longest: usize,
    ) -> std::io::Result<Lease> {
        let stream = tokio::time::timeout(limit, TcpStream::connect(target)).await??;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW * STREAMS as u32)
            .max_header_list_size(longest as u32)
            .keep_alive_interval(PING)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        let connection = Arc::new(Mutex::new(connection));
        let known = Arc::downgrade(&connection);
        // Ends by itself when every sender has been dropped and no request is in progress.
        tokio::spawn(async move {
            let ended = poll_fn(|cx| Pin::new(&mut *connection.lock()).poll(cx));
            if let Err(error) = ended.await {
                tracing::debug!("an app's HTTP/2 connection ended: {error}");
            }
        });
        let shared = Arc::new(Shared {
            connection: known,
            made: Instant::now(),
            sender,
            streams: AtomicUsize::new(0),
            idle_since: AtomicU64::new(now_ms()),
        });
        let lease = Lease::new(&shared, false);
        self.0[worker::slot()].lock().push(shared);
        Ok(lease)
    }

    /// Closes the connections that have been idle for `limit`; zero: all, as soon as no request is in
    /// progress.
    pub fn prune(&self, limit: Duration) {
        let limit = limit.as_millis() as u64;
        for slot in &self.0 {
            let idle = |s: &Shared| s.streams.load(Relaxed) == 0 && s.idle_for() >= limit;
            slot.lock().retain(|shared| limit > 0 && !idle(shared));
        }
    }
}

impl Shared {
    fn offers_websockets(&self) -> bool {
        let connection = self.connection.upgrade();
        connection.is_some_and(|it| it.lock().is_extended_connect_protocol_enabled())
    }

    fn idle_for(&self) -> u64 {
        now_ms().saturating_sub(self.idle_since.load(Relaxed))
    }
}
