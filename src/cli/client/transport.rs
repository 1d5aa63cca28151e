//! One connection to the agent: Unix socket, TCP or TLS.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Url;

use super::Error;

const CONNECT: Duration = Duration::from_secs(10);

/// Where an agent listens.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// `agent.sock` in its `data_dir`.
    Unix(PathBuf),
    /// `http://…` or `https://…`; if it has a path, that precedes the path of every request.
    Url(Url),
}

impl Endpoint {
    /// Reads an address from `--url`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
                Ok(Self::Url(url))
            }
            _ => Err(Error::usage(format!("invalid agent address `{text}`"))
                .hint("expected `https://deploy.example.com` or `http://127.0.0.1:9000`")),
        }
    }

    pub(super) fn path(&self, path: &str) -> String {
        match self {
            Self::Unix(_) => path.to_owned(),
            Self::Url(url) => format!("{}{path}", url.path().trim_end_matches('/')),
        }
    }

    pub(super) fn host(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Url(url) => match (url.host_str(), url.port()) {
                (Some(host), Some(port)) => format!("{host}:{port}"),
                (host, _) => host.unwrap_or_default().to_owned(),
            },
        }
    }

    /// The error for an agent that does not answer here.
    pub(super) fn lost(&self) -> Error {
        Error::unreachable(format!("the agent cannot be reached at {self}"))
    }

    pub(super) async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let opened = match timeout(CONNECT, self.open()).await {
            Ok(opened) => opened?,
            Err(_) => {
                return Err(self
                    .lost()
                    .hint("it did not accept the connection within 10 seconds"));
            }
        };
        let (sender, connection) = http1::handshake(TokioIo::new(opened))
            .await
            .map_err(|error| self.lost().because(&error))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// The error for an agent whose socket cannot be opened.
    fn refused(&self, error: &std::io::Error) -> Error {
        let lost = self.lost().because(error);
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => lost
                .denied()
                .hint("run this as the agent's user, for example with sudo"),
            _ => lost.hint("start it with `cutover serve`, or name another agent with `--url`"),
        }
    }

    /// A connection, within a deadline that the caller sets.
    pub(super) async fn open(&self) -> Result<Open, Error> {
        let url = match self {
            Self::Unix(path) => {
                return match UnixStream::connect(path).await {
                    Ok(stream) => Ok(Box::new(stream)),
                    Err(error) => Err(self.refused(&error)),
                };
            }
            Self::Url(url) => url,
        };
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(80);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((bare, port))
            .await
            .map_err(|error| self.lost().because(&error))?;
        if url.scheme() == "http" {
            return Ok(Box::new(tcp));
        }
        let name =
            ServerName::try_from(bare.to_owned()).map_err(|error| self.lost().because(&error))?;
        let tls = tls()?
            .connect(name, tcp)
            .await
            .map_err(|error| self.lost().because(&error))?;
        Ok(Box::new(tls))
    }
}

/// A connection of any kind.
pub type Open = Box<dyn Stream>;

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn tls() -> Result<TlsConnector, Error> {
    let config = crate::tls::client()
        .map_err(|error| Error::failed("failed to set up TLS").because(&error))?;
    Ok(TlsConnector::from(Arc::new(config)))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "`{}`", path.display()),
            Self::Url(url) => write!(f, "`{url}`"),
        }
    }
}
