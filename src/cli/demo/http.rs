//! One plain HTTP request on its own connection, as a forge or a visitor sends it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::cli::Error;

const DEADLINE: Duration = Duration::from_secs(60);

/// The response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` if it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Sends one request to `address` and reads the whole response.
pub async fn send(
    address: SocketAddr,
    request: http::request::Builder,
    body: impl Into<Bytes>,
) -> Result<Answer, Error> {
    let lost = || Error::unreachable(format!("`{address}` does not answer"));
    let exchange = async {
        let request: Request<_> = request
            .body(Full::new(body.into()))
            .map_err(|error| lost().because(&error))?;
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| lost().because(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| lost().because(&error))?;
        tokio::spawn(connection);
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| lost().because(&error))?;
        let (head, body) = answer.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| lost().because(&error))?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    };
    match tokio::time::timeout(DEADLINE, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(lost().hint(format!("no answer within {} s", DEADLINE.as_secs()))),
    }
}

/// Sends a GET request for `path` to `address`, with `host` as its Host.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Result<Answer, Error> {
    let request = Request::get(path).header("host", host);
    send(address, request, Bytes::new()).await
}
