//! A connection that was upgraded from HTTP: relays bytes both ways until one side or the drain ends
//! it.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{sleep, sleep_until, timeout};

use crate::proxy::route::claim::Tunnel;
use crate::proxy::route::drain::CLOSE_GRACE;
use crate::proxy::route::share::LiveShare;
use crate::proxy::upstream::via::Via;
use crate::proxy::watch::Watch;
use crate::proxy::wire::websocket::{Frames, close_from_client, close_from_server};

/// How long the 101 response may take to reach the client.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long one direction may go on after the other has ended.
const HALF_OPEN: Duration = Duration::from_secs(60);
/// The same for a WebSocket, which ends with a close frame and not by closing one direction.
const HALF_CLOSED: Duration = Duration::from_secs(2);
/// The size of one direction's buffer, in bytes.
const BUFFER: usize = 8 << 10;

/// Joins the client's connection, once the HTTP server has released it, with the app's. The watch is
/// held too, because an HTTP/2 connection counts its open streams by their watches.
pub fn open(client: OnUpgrade, via: Via, held: (Tunnel, Arc<Watch>), websocket: bool) {
    match via {
        Via::Http1(upstream) => {
            let (app, early) = upstream.into_parts();
            tokio::spawn(join(client, app.into_split(), early, held, websocket));
        }
        Via::Http2(mut lease) => {
            tokio::spawn(async move {
                let Some(stream) = lease.tunnel.take() else {
                    return;
                };
                let Ok(stream) = stream.await else { return };
                let app = tokio::io::split(TokioIo::new(stream));
                join(client, app, Bytes::new(), held, websocket).await;
            });
        }
    }
}

/// `early`: bytes that have already been read from the app.
async fn join(
    client: OnUpgrade,
    (from_app, to_app): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    early: Bytes,
    (held, _watch): (Tunnel, Arc<Watch>),
    websocket: bool,
) {
    let Ok(Ok(client)) = timeout(HANDSHAKE, client).await else {
        return;
    };
    let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(client));
    // Checked before each read: to wait for it in each direction would cost more than the rest.
    let told = AtomicBool::new(false);
    let (to_app_close, to_client_close) = close_frames(websocket);
    let up = relay(&mut from_client, to_app, Bytes::new(), &told, to_app_close);
    let down = relay(from_app, &mut to_client, early, &told, to_client_close);
    let over = async {
        told_to_close(held.share()).await;
        told.store(true, Relaxed);
        sleep(CLOSE_GRACE).await;
    };
    tokio::select! {
        // Polled first, so that both directions see at once that `told` is set.
        biased;
        () = over => {}
        _ = both(up, down, websocket) => {}
    }
    if websocket && told.load(Relaxed) {
        let counters = &held.share().counters;
        counters.websockets_closed.fetch_add(1, Relaxed);
    }
    drop(held);
    // An orderly shutdown, so that over TLS, too, the client learns that nothing is missing.
    let mut client = from_client.unsplit(to_client);
    let _ = timeout(CLOSE_GRACE, client.shutdown()).await;
}

/// Completes when both directions have ended, when one fails, or when one has not ended within the
/// limit after the other.
async fn both(
    up: impl Future<Output = io::Result<()>>,
    down: impl Future<Output = io::Result<()>>,
    websocket: bool,
) -> io::Result<()> {
    let limit = if websocket { HALF_CLOSED } else { HALF_OPEN };
    let (mut up, mut down) = (pin!(up), pin!(down));
    tokio::select! {
        result = &mut up => {
            result?;
            timeout(limit, down).await?
        }
        result = &mut down => {
            result?;
            timeout(limit, up).await?
        }
    }
}

/// Completes when the drain closes this tunnel. The tunnels of a share are closed one after the other.
async fn told_to_close(share: &LiveShare) {
    let mut closing = share.closing.subscribe();
    let set = closing.wait_for(Option::is_some).await.map(|set| *set);
    match set {
        Ok(Some(closing)) => sleep_until(share.closes_at(closing).into()).await,
        // Never reached: the sender is a part of the share, which the tunnel holds.
        _ => std::future::pending().await,
    }
}

/// The close frames for the app and for the client; none unless this is a WebSocket.
fn close_frames(websocket: bool) -> (Option<Bytes>, Option<Bytes>) {
    if !websocket {
        return (None, None);
    }
    let mut mask = [0; 4];
    // The mask protects caches that could take the payload for a request (RFC 6455, 10.3). It is no
    // secret, so a failure here does no harm.
    let _ = getrandom::fill(&mut mask);
    let to_app = Bytes::copy_from_slice(&close_from_client(mask));
    let to_client = Bytes::copy_from_slice(&close_from_server());
    (Some(to_app), Some(to_client))
}

/// Relays one direction, beginning with `early`. Once `told` is set, sends `close` after the frame in
/// progress, and then only waits for the sender's own close frame.
async fn relay(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    early: Bytes,
    told: &AtomicBool,
    close: Option<Bytes>,
) -> io::Result<()> {
    let mut frames = Frames::default();
    let mut buffer = vec![0; BUFFER];
    if !early.is_empty() {
        frames.follow(&early);
        to.write_all(&early).await?;
        to.flush().await?;
    }
    loop {
        let read = poll_fn(|cx| {
            if told.load(Relaxed) {
                return Poll::Ready(Ok(None));
            }
            let mut buf = ReadBuf::new(&mut buffer);
            let read = ready!(Pin::new(&mut from).poll_read(cx, &mut buf));
            Poll::Ready(read.map(|()| Some(buf.filled().len())))
        });
        let Some(n) = read.await? else { break };
        if n == 0 {
            return to.shutdown().await;
        }
        if close.is_some() {
            frames.follow(&buffer[..n]);
        }
        to.write_all(&buffer[..n]).await?;
        to.flush().await?;
    }

    let Some(close) = close else {
        return to.shutdown().await;
    };
    while !frames.at_boundary() {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        let rest = frames.rest_of_frame(&buffer[..n]);
        to.write_all(&buffer[..rest]).await?;
        // The rest of the buffer would follow our close frame, so it is discarded; but a close frame
        // from the sender in it still counts.
        frames.follow(&buffer[..n]);
        if rest < n {
            break;
        }
    }
    if !frames.closed {
        to.write_all(&close).await?;
        to.flush().await?;
    }
    while !frames.closed {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            break;
        }
        frames.follow(&buffer[..n]);
    }
    Ok(())
}
