//! The agent's listeners. Anyone can reach the webhook, so connections, headers and bodies are all
//! bounded in number, size and time.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use super::auth::Local;
use super::peer::Peer;
use super::places::{Arriving, Leaving, Place, Places, affordable};
use crate::log_limit::limited;

/// The most concurrent connections; fewer where the limit of open files is low.
const CONNECTIONS: usize = 2048;
/// How long a request's headers may take to arrive.
const HEADERS: Duration = Duration::from_secs(10);
/// The size limit for headers, in bytes; larger ones are answered with 431.
const HEADER_BYTES: usize = 64 << 10;

/// Serves TCP connections until dropped.
pub async fn tcp(listener: TcpListener, router: Router) {
    let places = Places::new(affordable(CONNECTIONS));
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                let place = Arc::new(places.take(peer.ip()).await);
                let peer = Some(Peer(peer.ip()));
                let router = router.clone();
                tokio::spawn(async move {
                    let served = connection(stream, peer, Some(place.clone()), router);
                    let mut served = pin!(served);
                    loop {
                        tokio::select! {
                            () = &mut served => return,
                            () = place.told_to_leave() => if place.makes_room() { return },
                        }
                    }
                });
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// Binds the socket, which only its owner may open. A file left behind by an earlier agent is replaced;
/// the lock on the data folder guarantees that no other agent is running.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The folder is closed to others too, so that nobody can connect before the mode is set.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves the socket until dropped. Its clients are admitted without a token and identified by their
/// user id.
pub async fn unix(listener: UnixListener, router: Router) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match stream.peer_cred() {
                Ok(peer) => {
                    let local = Local { uid: peer.uid() };
                    let router = router.clone().layer(axum::Extension(local));
                    tokio::spawn(connection(stream, None, None, router));
                }
                Err(error) => tracing::warn!(%error, "a local connection without a user"),
            },
            Err(error) => pause(&error).await,
        }
    }
}

/// Waits after a failed accept. The usual cause is a lack of file descriptors, and retrying at once
/// would spin.
async fn pause(error: &io::Error) {
    limited!(
        warn,
        "failed to accept a connection",
        %error,
        "failed to accept a connection"
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Option<Peer>,
    place: Option<Arc<Place>>,
    router: Router,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let answer = router.call(request.map(|body| Arriving::new(body, place.clone())));
        let place = place.clone();
        async move {
            let answer = answer.await?;
            Ok::<_, Infallible>(answer.map(|body| Leaving::new(body, place)))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection failed");
    }
}
