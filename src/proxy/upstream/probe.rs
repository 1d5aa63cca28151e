//! One check of an instance's health, run in the agent's own process.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, Version, header};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use thiserror::Error;
use tokio::net::TcpStream;

use crate::proxy::wire::headers::{Client, FORWARDED_PREFIX};

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

/// One question to an instance, asked as a visitor would.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub host: &'a str,
    pub path: &'a str,
    /// Header fields that are added, or replace those that the proxy would send.
    pub headers: &'a BTreeMap<String, String>,
    /// The visitor comes by https.
    pub secure: bool,
    /// The path prefix that the proxy strips.
    pub stripped: Option<&'a str>,
    /// Over HTTP/2 without TLS.
    pub h2c: bool,
    /// How long the response may take.
    pub limit: Duration,
}

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// Where a redirect leads.
    pub location: Option<String>,
}

/// Sends a GET request to `target` over a new connection, with the forwarding fields that the proxy
/// sends, and returns the response's head, whatever its status is.
pub async fn probe(target: SocketAddr, question: Question<'_>) -> Result<Reply, ProbeError> {
    let limit = question.limit;
    let request = request(question).map_err(|source| ProbeError::Path {
        path: question.path.into(),
        source,
    })?;
    tokio::time::timeout(limit, ask(target, request))
        .await
        .map_err(|_| ProbeError::Timeout { target, limit })?
}

fn request(question: Question<'_>) -> http::Result<Request<Empty<Bytes>>> {
    let Question { host, path, .. } = question;
    let mut request = match question.h2c {
        true => Request::get(format!("http://{host}{path}")).version(Version::HTTP_2),
        false => Request::get(path),
    }
    .body(Empty::<Bytes>::new())?;
    let name = HeaderValue::try_from(host)?;
    let headers = request.headers_mut();
    headers.insert(
        header::USER_AGENT,
        HeaderValue::from_static("cutover-probe"),
    );
    Client::new(Ipv4Addr::LOCALHOST.into(), question.secure, false).introduce(headers, &name);
    if let Some(prefix) = question.stripped {
        headers.insert(FORWARDED_PREFIX, HeaderValue::try_from(prefix)?);
    }
    for (name, value) in question.headers {
        let mut value = HeaderValue::try_from(value)?;
        // Never shown where a request is printed: it may be a password.
        value.set_sensitive(true);
        headers.insert(HeaderName::try_from(name)?, value);
    }
    if !question.h2c {
        headers.insert(header::HOST, name);
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(request)
}

async fn ask(target: SocketAddr, request: Request<Empty<Bytes>>) -> Result<Reply, ProbeError> {
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
        return Ok(reply(&answer.map_err(failed)?));
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
    Ok(reply(&answer.map_err(failed)?))
}

fn reply<B>(answer: &Response<B>) -> Reply {
    let location = answer.headers().get(header::LOCATION);
    let location = location.filter(|_| answer.status().is_redirection());
    Reply {
        status: answer.status().as_u16(),
        location: location.and_then(|it| it.to_str().ok()).map(str::to_owned),
    }
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

    const NONE: &BTreeMap<String, String> = &BTreeMap::new();

    fn question(path: &str) -> Question<'_> {
        Question {
            host: "a.test",
            path,
            headers: NONE,
            secure: false,
            stripped: None,
            h2c: false,
            limit: Duration::from_secs(5),
        }
    }

    async fn ask(answer: &'static str) -> Result<Reply, ProbeError> {
        probe(server(answer).await, question("/up")).await
    }

    #[tokio::test]
    async fn any_status_is_returned_and_where_a_redirect_leads() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nlocation: /x\r\n\r\nok";
        let reply = |status, location: Option<&str>| Reply {
            status,
            location: location.map(str::to_owned),
        };
        assert_eq!(ask(ok).await.unwrap(), reply(200, None));
        let busy = "HTTP/1.1 503 Busy\r\nconnection: close\r\n\r\n";
        assert_eq!(ask(busy).await.unwrap(), reply(503, None));
        let moved = "HTTP/1.1 301 Moved\r\nlocation: https://a.test/up\r\n\r\n";
        let there = reply(301, Some("https://a.test/up"));
        assert_eq!(ask(moved).await.unwrap(), there);
    }

    #[test]
    fn it_comes_as_the_proxy_s_requests_do() {
        let headers = [("accept", "text/html"), ("x-forwarded-for", "192.0.2.1")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let question = Question {
            headers: &headers.into(),
            secure: true,
            stripped: Some("/api"),
            ..question("/up?x=1")
        };
        let request = request(question).unwrap();
        let header = |name| request.headers()[name].to_str().unwrap();
        assert_eq!(request.uri(), "/up?x=1");
        assert_eq!(header("host"), "a.test");
        assert_eq!(header("x-forwarded-proto"), "https");
        assert_eq!(header("x-forwarded-host"), "a.test");
        assert_eq!(header("x-forwarded-prefix"), "/api");
        assert_eq!(header("x-forwarded-for"), "192.0.2.1");
        assert_eq!(header("accept"), "text/html");
        let forwarded = "for=127.0.0.1;host=\"a.test\";proto=https";
        assert_eq!(header("forwarded"), forwarded);
        let shown = format!("{request:?}");
        assert!(!shown.contains("text/html"), "{shown}");
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
        let question = Question {
            h2c: true,
            ..question("/up")
        };
        assert_eq!(probe(target, question).await.unwrap().status, 204);
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
        let short = Question {
            limit: Duration::from_millis(50),
            ..question("/")
        };
        let slow = probe(target, short).await;
        assert!(matches!(slow, Err(ProbeError::Timeout { .. })), "{slow:?}");
        drop(listener);
        let gone = probe(target, short).await;
        assert!(matches!(gone, Err(ProbeError::Refused(_))), "{gone:?}");
    }
}
