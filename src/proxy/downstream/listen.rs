//! Accepting connections and serving them.

use std::future::poll_fn;
use std::io::Cursor;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::*};
use std::task::Poll;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::client_io::{EARLY, Limits};
use super::limits::{Place, Places};
use super::{http1, http2};
use crate::proxy::exchange::forward::Connection;
use crate::proxy::route::routes::Routes;
use crate::proxy::watch::Watch;
use crate::proxy::wire::headers::Client;
use crate::proxy::wire::proxy_protocol;

/// How only HTTP/2 begins.
const PRI: &[u8] = b"PRI ";
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What keeps connections from being accepted is said once in so long.
const QUIET: Duration = Duration::from_secs(60);

/// What all connections share.
pub struct Listening {
    pub routes: Arc<Routes>,
    pub limits: Limits,
    pub places: Arc<Places>,
    /// Every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// The same for those to the TLS port.
    pub proxy_protocol_tls: bool,
    pub stage: Stage,
    /// For the connections to the TLS port.
    pub tls: Option<TlsAcceptor>,
    /// Proxies whose word about a client counts.
    pub trusted: Vec<IpNet>,
}

impl Listening {
    /// Whether a connection begins with a PROXY header.
    fn is_introduced(&self, secure: bool) -> bool {
        match secure {
            true => self.proxy_protocol_tls,
            false => self.proxy_protocol,
        }
    }

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
    let mut said: Option<Instant> = None;
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
                if said.is_none_or(|said| said.elapsed() > QUIET) {
                    said = Some(Instant::now());
                    tracing::warn!("connections are not accepted: {error}");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

fn admit(stream: TcpStream, peer: SocketAddr, secure: bool, shared: &Arc<Listening>) {
    let Some(mut place) = shared.places.take() else {
        return;
    };
    // Whoever a balancer speaks for is not known yet, and a proxy in front brings the connections
    // of many.
    if !shared.is_introduced(secure) && !shared.trusts(peer.ip()) && !place.is_of(peer.ip()) {
        return;
    }
    tokio::spawn(serve(stream, peer.ip(), place, secure, shared.clone()));
}

/// Finds out what the client speaks, and serves it.
async fn serve(
    mut stream: TcpStream,
    mut peer: IpAddr,
    mut place: Place,
    secure: bool,
    shared: Arc<Listening>,
) {
    let shared = &shared;
    if shared.is_introduced(secure) {
        let header = Box::pin(proxy_protocol::take(&mut stream));
        match timeout(HANDSHAKE, header).await {
            Ok(Ok(client)) => peer = client.unwrap_or(peer),
            _ => return,
        }
        if !shared.trusts(peer) && !place.is_of(peer) {
            return;
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
            Some(b"h2") => Box::pin(http2::serve(stream, connection, place, shared)).await,
            _ => Box::pin(http1::serve(stream, Vec::new(), connection, place, shared)).await,
        }
    } else {
        // Ahead of everything else, so that a client that says nothing costs next to nothing.
        let first = first_bytes(&mut stream, &connection.watch, shared).await;
        let Some(first) = first else { return };
        if first.starts_with(PRI) {
            let (from, to) = stream.into_split();
            let stream = tokio::io::join(Cursor::new(first).chain(from), to);
            Box::pin(http2::serve(stream, connection, place, shared)).await;
        } else {
            Box::pin(http1::serve(stream, first, connection, place, shared)).await;
        }
    }
}

/// The client's first bytes, enough of them to tell what it speaks. `None`: it says nothing.
async fn first_bytes(stream: &mut TcpStream, watch: &Watch, shared: &Listening) -> Option<Vec<u8>> {
    watch.client.set_in(shared.limits.idle_ms);
    let mut first = Vec::new();
    poll_fn(|cx| {
        loop {
            let mut room = [const { MaybeUninit::uninit() }; EARLY];
            let mut buf = ReadBuf::uninit(&mut room);
            match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    first.extend_from_slice(buf.filled());
                }
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => break,
            }
            // Less than that may be the beginning of a POST too.
            if first.len() >= PRI.len() || !PRI.starts_with(&first) {
                return Poll::Ready(Some(std::mem::take(&mut first)));
            }
        }
        watch.register(cx.waker());
        match watch.client.has_passed() || shared.stage.is_closing() {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    })
    .await
}
