//! Accepts connections and serves them.

use std::future::poll_fn;
use std::io::{self, Cursor};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::certificates::CHALLENGE;
use super::client_io::EARLY;
use super::handler::{Connection, Handler};
use super::limits::{Place, network_of};
use super::server::{Entrance, Server};
use super::{http1, http2};
use crate::log_limit::limited;
use crate::proxy::watch::Watch;
use crate::proxy::wire::headers::Client;
use crate::proxy::wire::proxy_protocol::{self, NoHeader};

/// Only HTTP/2's connection preface begins like this (RFC 9113, 3.4).
const PRI: &[u8] = b"PRI ";
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Accepts connections until `stop` is set. Each is served by its own task.
pub async fn accept<H: Handler>(
    listener: TcpListener,
    entrance: Entrance,
    server: Arc<Server<H>>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|&stop| stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, entrance, &server),
            Err(error) => {
                // The usual cause is a lack of file descriptors, some of which will soon be free.
                limited!(
                    warn,
                    "failed to accept a connection",
                    "failed to accept a connection: {error}"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

fn admit<H: Handler>(
    stream: TcpStream,
    peer: SocketAddr,
    entrance: Entrance,
    server: &Arc<Server<H>>,
) {
    if let Some(count) = server.places.scarce() {
        server.watches.make_room(count);
    }
    let Some(mut place) = server.places.take() else {
        return;
    };
    // Behind a balancer the client is not known yet, and a trusted proxy brings the connections of many
    // clients.
    let trusted = server.trusts(peer.ip()) && entrance != Entrance::Link;
    if !server.has_proxy_header(entrance) && !trusted && !place.is_of(peer.ip()) {
        return;
    }
    tokio::spawn(serve(stream, peer.ip(), place, entrance, server.clone()));
}

/// Detects the client's protocol, and serves the connection.
async fn serve<H: Handler>(
    mut stream: TcpStream,
    mut peer: IpAddr,
    mut place: Place,
    entrance: Entrance,
    server: Arc<Server<H>>,
) {
    let server = &server;
    if server.has_proxy_header(entrance) {
        let header = Box::pin(take_proxy_header(&mut stream));
        match timeout(HANDSHAKE, header).await {
            Ok(Ok(client)) => peer = client.unwrap_or(peer),
            _ => return,
        }
        if !server.trusts(peer) && !place.is_of(peer) {
            return;
        }
    }
    let watch = server.watches.add();
    let linked = entrance == Entrance::Link;
    let secure = entrance == Entrance::Tls;
    let trusted = server.trusts(peer) && !linked;
    if !trusted {
        let _ = watch.network.set(network_of(peer));
    }
    let mut client = Client::new(peer, secure, trusted);
    client.linked = linked;
    let connection = Arc::new(Connection {
        client: Mutex::new(client),
        watch,
    });
    // What a connection may become is boxed: otherwise every connection would be as large as the
    // largest kind.
    if let Some(tls) = server.tls.as_ref().filter(|_| secure) {
        let accepted = Box::pin(tls.accept(stream));
        let Ok(Ok(stream)) = timeout(HANDSHAKE, accepted).await else {
            return;
        };
        match stream.get_ref().1.alpn_protocol() {
            // The handshake was the answer to a challenge.
            Some(CHALLENGE) => {}
            Some(b"h2") => Box::pin(http2::serve(stream, connection, place, server)).await,
            _ => Box::pin(http1::serve(stream, Vec::new(), connection, place, server)).await,
        }
    } else {
        // Before everything else, so that a client that sends nothing costs next to nothing.
        let first = first_bytes(&mut stream, &connection.watch, server).await;
        let Some(first) = first else { return };
        if first.starts_with(PRI) {
            let (from, to) = stream.into_split();
            let stream = tokio::io::join(Cursor::new(first).chain(from), to);
            Box::pin(http2::serve(stream, connection, place, server)).await;
        } else {
            Box::pin(http1::serve(stream, first, connection, place, server)).await;
        }
    }
}

/// The client's first bytes, enough to detect its protocol. `None`: it sent nothing.
async fn first_bytes<H>(
    stream: &mut TcpStream,
    watch: &Watch,
    server: &Server<H>,
) -> Option<Vec<u8>> {
    watch.client.set_in(server.limits.idle_ms);
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
            // A shorter beginning may also be that of a POST.
            if first.len() >= PRI.len() || !PRI.starts_with(&first) {
                return Poll::Ready(Some(std::mem::take(&mut first)));
            }
        }
        watch.register(cx.waker());
        let yields = watch.yields.load(SeqCst);
        match yields || watch.client.has_passed() || server.stage.is_closing() {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    })
    .await
}

/// Reads the PROXY header from the stream. Has no deadline of its own.
async fn take_proxy_header(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let mut start = [0; proxy_protocol::LONGEST];
    let header = loop {
        let have = stream.peek(&mut start).await?;
        match proxy_protocol::parse(&start[..have]) {
            Ok(header) => break header,
            Err(NoHeader::Malformed) => return Err(io::ErrorKind::InvalidData.into()),
            Err(NoHeader::Incomplete) if have == 0 => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // The socket stays readable because the header was only peeked at: the only way to wait is
            // to sleep.
            Err(NoHeader::Incomplete) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    stream.read_exact(&mut start[..header.length]).await?;
    Ok(header.client)
}
