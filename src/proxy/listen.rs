//! Accepting connections and serving them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::*};
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::client_io::{ClientIo, Limits};
use super::forward::{Connection, forward};
use super::headers::Client;
use super::proxy_protocol;
use super::routes::Routes;

/// A head may be so long, as nginx's by default.
const MAX_HEAD: usize = 32 << 10;
/// What is read of a body before it is passed on.
const BUFFER: usize = 128 << 10;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Requests at a time over one HTTP/2 connection.
const STREAMS: u32 = 128;
/// An HTTP/2 client that does not answer is gone.
const PING: Duration = Duration::from_secs(30);

/// What all connections share.
pub struct Listening {
    pub routes: Arc<Routes>,
    pub limits: Limits,
    pub max_connections: usize,
    pub connections: AtomicUsize,
    pub max_per_client: usize,
    pub clients: Mutex<HashMap<IpAddr, usize>>,
    /// Every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    pub stage: Stage,
    /// For the connections to the TLS port.
    pub tls: Option<TlsAcceptor>,
    /// Proxies whose word about a client counts.
    pub trusted: Vec<IpNet>,
}

impl Listening {
    fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|net| net.contains(&peer))
    }
}

/// How far the proxy is in leaving.
#[derive(Default)]
pub struct Stage(AtomicU8);

impl Stage {
    /// Every answer is the last of its connection.
    const LEAVING: u8 = 1;
    /// Idle connections are closed too.
    const CLOSING: u8 = 2;

    pub fn leave(&self) {
        self.0.fetch_max(Self::LEAVING, SeqCst);
    }

    pub fn close(&self) {
        self.0.store(Self::CLOSING, SeqCst);
    }

    pub fn is_leaving(&self) -> bool {
        self.0.load(Relaxed) >= Self::LEAVING
    }

    pub fn is_closing(&self) -> bool {
        self.0.load(SeqCst) >= Self::CLOSING
    }
}

/// Accepts until told to stop. Connections go on in tasks of their own.
pub async fn accept(
    listener: TcpListener,
    secure: bool,
    shared: Arc<Listening>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|&stop| stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, secure, &shared),
            Err(error) => {
                // Mostly out of file descriptors: some will be free soon.
                tracing::warn!("a connection was not accepted: {error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

fn admit(stream: TcpStream, peer: SocketAddr, secure: bool, shared: &Arc<Listening>) {
    let Some(place) = Place::take(shared, peer.ip()) else {
        return;
    };
    let _ = stream.set_nodelay(true);
    tokio::spawn(serve(stream, peer.ip(), place, secure));
}

/// One connection's part of `max_connections`, and of its client's.
struct Place(Arc<Listening>, Option<IpAddr>);

impl Place {
    /// None if there is none left.
    fn take(shared: &Arc<Listening>, peer: IpAddr) -> Option<Self> {
        let mut place = Self(shared.clone(), None);
        if shared.connections.fetch_add(1, Relaxed) >= shared.max_connections {
            return None;
        }
        // A proxy in front brings the connections of many.
        if !shared.trusts(peer) {
            let mut clients = shared.clients.lock();
            let count = clients.entry(peer).or_insert(0);
            if *count >= shared.max_per_client {
                return None;
            }
            *count += 1;
            place.1 = Some(peer);
        }
        Some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
        let Some(peer) = self.1 else { return };
        let mut clients = self.0.clients.lock();
        if let Some(count) = clients.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&peer);
            }
        }
    }
}

/// Finds out what the client speaks, and serves it.
async fn serve(mut stream: TcpStream, mut peer: IpAddr, place: Place, secure: bool) {
    let shared = &place.0;
    if shared.proxy_protocol {
        match timeout(HANDSHAKE, proxy_protocol::take(&mut stream)).await {
            Ok(Ok(client)) => peer = client.unwrap_or(peer),
            _ => return,
        }
    }
    let watch = shared.routes.watches.add();
    let connection = Arc::new(Connection {
        routes: shared.routes.clone(),
        client: Mutex::new(Client::new(peer, secure, shared.trusts(peer))),
        watch,
    });
    let first_byte = Duration::from_millis(shared.limits.idle_ms);
    if let Some(tls) = shared.tls.as_ref().filter(|_| secure) {
        let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await else {
            return;
        };
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => serve_http2(stream, connection, shared).await,
            _ => serve_http1(stream, connection, shared).await,
        }
    } else {
        // Ahead of everything else, so that a client that says nothing costs next to nothing.
        let mut start = [0; 4];
        match timeout(first_byte, stream.peek(&mut start)).await {
            Ok(Ok(4)) if start == *b"PRI " => serve_http2(stream, connection, shared).await,
            Ok(Ok(1..)) => serve_http1(stream, connection, shared).await,
            _ => {}
        }
    }
}

async fn serve_http1<S>(stream: S, connection: Arc<Connection>, shared: &Arc<Listening>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let watch = connection.watch.clone();
    let io = ClientIo::new(stream, watch.clone(), shared.limits);
    let service = service_fn(|request| {
        let (connection, shared) = (connection.clone(), shared.clone());
        async move {
            let mut response = forward(&connection, request).await;
            if shared.stage.is_leaving() {
                let close = http::HeaderValue::from_static("close");
                let headers = response.headers_mut();
                headers.entry(http::header::CONNECTION).or_insert(close);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .header_read_timeout(None)
        .max_header_size(MAX_HEAD)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut served = pin!(served);
    let mut told = false;
    let ended = std::future::poll_fn(|cx| {
        if let Poll::Ready(ended) = served.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        watch.register(cx.waker());
        if !told && shared.stage.is_closing() {
            told = true;
            served.as_mut().graceful_shutdown();
            return served.as_mut().poll(cx);
        }
        Poll::Pending
    });
    if let Err(error) = ended.await {
        tracing::trace!("a client connection ended: {error}");
    }
}

async fn serve_http2<S>(stream: S, connection: Arc<Connection>, shared: &Arc<Listening>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let watch = connection.watch.clone();
    let service = service_fn(|request| {
        let stream = Connection {
            routes: connection.routes.clone(),
            client: Mutex::new(connection.client.lock().clone()),
            watch: connection.routes.watches.add_stream(&connection.watch),
        };
        async move { Ok::<_, Infallible>(forward(&stream, request).await) }
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .keep_alive_interval(PING)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let mut told = false;
    let ended = std::future::poll_fn(|cx| {
        if let Poll::Ready(ended) = served.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        watch.register(cx.waker());
        if watch.killed.load(SeqCst) {
            return Poll::Ready(Ok(()));
        }
        // Unlike HTTP/1.1, HTTP/2 can say which requests are still served: no need to wait.
        if !told && shared.stage.is_leaving() {
            told = true;
            served.as_mut().graceful_shutdown();
            return served.as_mut().poll(cx);
        }
        Poll::Pending
    });
    if let Err(error) = ended.await {
        tracing::trace!("a client connection ended: {error}");
    }
}
