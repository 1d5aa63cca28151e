//! One check of an instance's health, run in the agent's own process.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version, header};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use thiserror::Error;
use tokio::net::TcpStream;

/// Why an instance returned no status.
#[derive(Debug, Error)]
pub enum ProbeError {
    #[error("connection refused by {0}: is the app listening on this port, on 0.0.0.0?")]
    Refused(SocketAddr),
    #[error("failed to connect to {target}: {source}")]
    Unreachable {
        target: SocketAddr,
        source: io::Error,
    },
    #[error("no response from {target} within {limit:?}")]
    Timeout { target: SocketAddr, limit: Duration },
    #[error("{0} closed the connection without a response")]
    Closed(SocketAddr),
    #[error("the response of {target} is not HTTP: {source}")]
    Malformed {
        target: SocketAddr,
        source: hyper::Error,
    },
    #[error("`{path}` is not a valid path: {source}")]
    Path { path: String, source: http::Error },
}

/// Sends a GET request for `path` to `target` over a new connection and returns the response's status,
/// whatever it is. `host`: the Host header, by default the target's address. `h2c`: over HTTP/2 without
/// TLS.
pub async fn probe(
    target: SocketAddr,
    host: Option<&str>,
    path: &str,
    h2c: bool,
    limit: Duration,
) -> Result<u16, ProbeError> {
    let address = target.to_string();
    let host = host.unwrap_or(&address);
    let request = match h2c {
        true => Request::get(format!("http://{host}{path}")).version(Version::HTTP_2),
        false => Request::get(path)
            .header(header::HOST, host)
            .header(header::CONNECTION, "close"),
    };
    let request = request
        .header(header::USER_AGENT, "cutover-probe")
        .body(Empty::<Bytes>::new())
        .map_err(|source| ProbeError::Path {
            path: path.into(),
            source,
        })?;
    tokio::time::timeout(limit, ask(target, request))
        .await
        .map_err(|_| ProbeError::Timeout { target, limit })?
}

async fn ask(target: SocketAddr, request: Request<Empty<Bytes>>) -> Result<u16, ProbeError> {
    let stream = TcpStream::connect(target)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::ConnectionRefused => ProbeError::Refused(target),
            _ => ProbeError::Unreachable { target, source },
        })?;
    let failed = |source: hyper::Error| {
        if source.is_parse() || source.is_parse_too_large() {
            ProbeError::Malformed { target, source }
        } else {
            ProbeError::Closed(target)
        }
    };
    if request.version() == Version::HTTP_2 {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(failed)?;
        let mut answer = pin!(sender.send_request(request));
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = connection => answer.await,
        };
        return Ok(answer.map_err(failed)?.status().as_u16());
    }
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let mut answer = pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The connection may have delivered the response and ended in the same poll.
        _ = connection => answer.await,
    };
    Ok(answer.map_err(failed)?.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        address
    }

    async fn ask(answer: &'static str) -> Result<u16, ProbeError> {
        probe(
            server(answer).await,
            None,
            "/up",
            false,
            Duration::from_secs(5),
        )
        .await
    }

    #[tokio::test]
    async fn any_status_is_returned() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(ask(ok).await.unwrap(), 200);
        assert_eq!(
            ask("HTTP/1.1 503 Busy\r\nconnection: close\r\n\r\n")
                .await
                .unwrap(),
            503
        );
    }

    #[tokio::test]
    async fn an_app_that_speaks_http2_alone_is_asked_in_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut answer))) = connection.accept().await {
                assert_eq!(request.uri(), "http://a.test/up");
                let response = http::Response::builder().status(204).body(()).unwrap();
                answer.send_response(response, true).unwrap();
            }
        });
        let status = probe(target, Some("a.test"), "/up", true, Duration::from_secs(5)).await;
        assert_eq!(status.unwrap(), 204);
    }

    #[tokio::test]
    async fn what_is_wrong_is_said() {
        assert!(matches!(ask("").await, Err(ProbeError::Closed(_))));
        assert!(matches!(
            ask("220 mail.example.com ESMTP\r\n").await,
            Err(ProbeError::Malformed { .. })
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let short = Duration::from_millis(50);
        let slow = probe(target, None, "/", false, short).await;
        assert!(matches!(slow, Err(ProbeError::Timeout { .. })), "{slow:?}");
        drop(listener);
        let gone = probe(target, None, "/", false, short).await;
        assert!(matches!(gone, Err(ProbeError::Refused(_))), "{gone:?}");
    }
}
