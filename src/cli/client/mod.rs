//! The agent's API as the verbs use it: on the machine itself over the Unix socket in `data_dir`, from
//! elsewhere with `--url` and a token.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, ClientRequestBuilder};

use super::{Error, Global, configuration};

pub mod follow;
mod lines;
mod transport;
pub mod view;

pub use lines::Lines;
pub use transport::{Endpoint, Open};

/// The longest response that is read, in bytes; only a log is longer.
const CAP: usize = 64 << 20;

/// Where the agent is, and the token that it requires.
pub struct Client {
    endpoint: Endpoint,
    token: Option<String>,
}

impl Client {
    /// The agent that the command line names: `--url`, or the one whose configuration is found.
    pub fn new(global: &Global) -> Result<Self, Error> {
        let Some(url) = &global.url else {
            return Ok(Self::local(&configuration::data_dir(global)?));
        };
        let token = std::env::var("CUTOVER_TOKEN").ok();
        if token.is_none() {
            return Err(Error::usage("`CUTOVER_TOKEN` is not set").hint(format!(
                "print the token with `cutover token` on the agent's machine, and set it here to \
                 use `{url}`"
            )));
        }
        Ok(Self {
            endpoint: Endpoint::parse(url)?,
            token,
        })
    }

    /// The agent on this machine whose files are in `data_dir`. It requires no token.
    pub fn local(data_dir: &std::path::Path) -> Self {
        Self {
            endpoint: Endpoint::Unix(data_dir.join("agent.sock")),
            token: None,
        }
    }

    /// The agent at `endpoint`, with or without a token.
    pub fn at(endpoint: Endpoint, token: Option<String>) -> Self {
        Self { endpoint, token }
    }

    /// Sends a GET request and reads JSON.
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        let response = self.send(Method::GET, path, None).await?;
        self.read_json(response).await
    }

    /// Sends a POST request with JSON and reads JSON; `null` if the response has no body.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        let response = self.send(Method::POST, path, Some(body)).await?;
        self.read_json(response).await
    }

    /// Sends a DELETE request and reads JSON.
    pub async fn delete(&self, path: &str) -> Result<Value, Error> {
        let response = self.send(Method::DELETE, path, None).await?;
        self.read_json(response).await
    }

    /// Sends a GET request and reads JSON, whatever the status is.
    pub async fn look(&self, path: &str) -> Result<(StatusCode, Value), Error> {
        let response = self.exchange(Method::GET, path, None).await?;
        let status = response.status();
        Ok((status, self.read_json(response).await?))
    }

    /// Sends a GET request for a text that arrives line by line.
    pub async fn lines(&self, path: &str) -> Result<Lines, Error> {
        let response = self.send(Method::GET, path, None).await?;
        Ok(Lines::new(response.into_body()))
    }

    /// Opens a WebSocket.
    pub async fn web_socket(&self, path: &str) -> Result<WebSocketStream<Open>, Error> {
        let uri = format!("ws://{}{}", self.endpoint.host(), self.endpoint.path(path));
        let uri = uri.parse::<http::Uri>();
        let uri = uri.map_err(|error| Error::usage("invalid request").because(&error))?;
        let mut request = ClientRequestBuilder::new(uri)
            .with_header("user-agent", concat!("cutover/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.with_header("authorization", format!("Bearer {token}"));
        }
        let stream = self.endpoint.open().await?;
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(answer)) => {
                let status = answer.status();
                Err(refused(
                    status,
                    answer.body().as_deref().unwrap_or_default(),
                ))
            }
            Err(error) => Err(self.endpoint.lost().because(&error)),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, Error> {
        let response = self.exchange(method, path, body).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(self.endpoint.path(path))
            .header("host", self.endpoint.host())
            .header("user-agent", concat!("cutover/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                body.to_string()
            }
            None => String::new(),
        };
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Error::usage("invalid request").because(&error))?;
        let mut sender = self.endpoint.connect().await?;
        sender
            .send_request(request)
            .await
            .map_err(|error| self.endpoint.lost().because(&error))
    }

    async fn read_json(&self, response: Response<Incoming>) -> Result<Value, Error> {
        let bytes = Limited::new(response.into_body(), CAP)
            .collect()
            .await
            .map_err(|error| self.endpoint.lost().because(&*error))?
            .to_bytes();
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::failed(format!(
                "{} does not answer like a Cutover agent",
                self.endpoint
            ))
            .because(&error)
        })
    }

    /// Converts `{"error": {"code", "message", "hint"}}` to an error of this command line.
    async fn refusal(&self, response: Response<Incoming>) -> Error {
        let status = response.status();
        let bytes = Limited::new(response.into_body(), CAP).collect().await;
        refused(
            status,
            &bytes.map(|body| body.to_bytes()).unwrap_or_default(),
        )
    }
}

fn refused(status: StatusCode, body: &[u8]) -> Error {
    let answer: view::Refusal = serde_json::from_slice(body).unwrap_or_default();
    let message = match answer.error.message {
        text if text.is_empty() => format!("the agent answered {status}"),
        text => text,
    };
    let error = match status.is_client_error() {
        // What was asked for is right, but its time is not now.
        true if answer.error.code == "not_run" => Error::failed(message),
        true => Error::usage(message),
        false => Error::failed(message),
    };
    match answer.error.hint {
        _ if status == StatusCode::UNAUTHORIZED => {
            error.hint("set `CUTOVER_TOKEN` to what `cutover token` prints on the agent's machine")
        }
        // On the command line, clap has described what can be given.
        Some(hint) if !hint.contains("/api/") => error.hint(hint),
        _ => error,
    }
}
