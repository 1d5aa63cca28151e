//! Accepting connections and serving them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::*};
use std::time::Duration;

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::client_io::Limits;
use super::forward::Connection;
use super::headers::Client;
use super::routes::Routes;
use super::{http1, http2, proxy_protocol};

const HANDSHAKE: Duration = Duration::from_secs(10);

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
        let header = Box::pin(proxy_protocol::take(&mut stream));
        match timeout(HANDSHAKE, header).await {
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
    // Boxed, what a connection may become: all of them would else be as large as the largest.
    if let Some(tls) = shared.tls.as_ref().filter(|_| secure) {
        let accepted = Box::pin(tls.accept(stream));
        let Ok(Ok(stream)) = timeout(HANDSHAKE, accepted).await else {
            return;
        };
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Box::pin(http2::serve(stream, connection, shared)).await,
            _ => Box::pin(http1::serve(stream, connection, shared)).await,
        }
    } else {
        let first_byte = Duration::from_millis(shared.limits.idle_ms);
        // Ahead of everything else, so that a client that says nothing costs next to nothing.
        let mut start = [0; 4];
        match timeout(first_byte, stream.peek(&mut start)).await {
            Ok(Ok(4)) if start == *b"PRI " => {
                Box::pin(http2::serve(stream, connection, shared)).await
            }
            Ok(Ok(1..)) => Box::pin(http1::serve(stream, connection, shared)).await,
            _ => {}
        }
    }
}
