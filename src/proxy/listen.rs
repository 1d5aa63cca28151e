//! Accepting connections and serving them.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::*};
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::client_io::{ClientIo, Limits};
use super::forward::{Connection, forward};
use super::headers::Client;
use super::routes::Routes;

/// A head may be so long, as nginx's by default.
const MAX_HEAD: usize = 32 << 10;
/// What is read of a body before it is passed on.
const BUFFER: usize = 128 << 10;

/// What all connections share.
pub struct Listening {
    pub routes: Arc<Routes>,
    pub limits: Limits,
    pub max_connections: usize,
    pub connections: AtomicUsize,
    pub stage: Stage,
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
            Ok((stream, peer)) => admit(stream, peer, &shared),
            Err(error) => {
                // Mostly out of file descriptors: some will be free soon.
                tracing::warn!("a connection was not accepted: {error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

fn admit(stream: TcpStream, peer: SocketAddr, shared: &Arc<Listening>) {
    let place = Place::take(shared);
    if shared.connections.load(Relaxed) > shared.max_connections {
        return;
    }
    let _ = stream.set_nodelay(true);
    tokio::spawn(serve(stream, peer.ip(), place));
}

/// One connection's part of `max_connections`.
struct Place(Arc<Listening>);

impl Place {
    fn take(shared: &Arc<Listening>) -> Self {
        shared.connections.fetch_add(1, Relaxed);
        Self(shared.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

async fn serve(stream: TcpStream, peer: IpAddr, place: Place) {
    let shared = &place.0;
    let watch = shared.routes.watches.add();
    let connection = Arc::new(Connection {
        routes: shared.routes.clone(),
        client: Mutex::new(Client::new(peer, false, false)),
        watch: watch.clone(),
    });
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
