//! Requests whose connection is needed too: it is turned over to the builder, or ends a build when it is
//! closed.

use std::io;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::AbortOnDropHandle;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Docker's port without TLS.
const PORT: u16 = 2375;

/// Closes the connection when it is dropped.
pub(super) struct Connection {
    _io: AbortOnDropHandle<()>,
}

/// Sends one request to the engine at `host` (`unix:///…` or `tcp://…`) on a connection of its own.
pub(super) async fn call(
    host: &str,
    request: Request<Body>,
) -> io::Result<(Response<Incoming>, Connection)> {
    match host.split_once("://") {
        Some(("unix", path)) => send(UnixStream::connect(path).await?, request).await,
        Some((_, address)) => {
            let address = address.trim_end_matches('/');
            let stream = match url::Url::parse(&format!("http://{address}")) {
                Ok(url) if url.port().is_none() && !address.ends_with(":80") => {
                    TcpStream::connect((url.host_str().unwrap_or_default(), PORT)).await?
                }
                _ => TcpStream::connect(address).await?,
            };
            send(stream, request).await
        }
        None => Err(io::ErrorKind::InvalidInput.into()),
    }
}

async fn send(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
) -> io::Result<(Response<Incoming>, Connection)> {
    let shaken = http1::handshake(TokioIo::new(io)).await;
    let (mut sender, connection) = shaken.map_err(io::Error::other)?;
    // Its errors are those of the answer too.
    let io = tokio::spawn(async move { drop(connection.with_upgrades().await) });
    let connection = Connection {
        _io: AbortOnDropHandle::new(io),
    };
    let answer = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    Ok((answer, connection))
}
