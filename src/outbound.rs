//! Connections to the servers of others: through the proxy that the environment names, over TLS.

use std::error::Error as StdError;
use std::io;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use rustls::pki_types::CertificateDer;
use tower_service::Service;

/// Why a server was not reached. The text is without the proxy's password.
#[derive(Debug, thiserror::Error)]
pub enum Unreached {
    #[error("{0}")]
    Down(String),
    /// Its certificate, or its proxy's, is not to be trusted.
    #[error("{0}")]
    Untrusted(String),
}

/// What connections are made with: the certificates that the system trusts, and the proxies in
/// `HTTPS_PROXY`, `HTTP_PROXY` and `ALL_PROXY`, except for the hosts in `NO_PROXY`.
pub struct Outbound {
    tls: rustls::ClientConfig,
    proxies: Matcher,
}

impl Outbound {
    /// Reads what the system trusts, which takes some milliseconds. An error is one sentence.
    pub fn new() -> Result<Self, String> {
        Self::through(Matcher::from_env())
    }

    /// The same with other proxies than the environment's.
    pub fn through(proxies: Matcher) -> Result<Self, String> {
        Self::with(proxies, Vec::new())
    }

    /// The same as [`Outbound::new`], trusting these authorities too.
    pub fn trusting(more: Vec<CertificateDer<'_>>) -> Result<Self, String> {
        Self::with(Matcher::from_env(), more)
    }

    fn with(proxies: Matcher, more: Vec<CertificateDer<'_>>) -> Result<Self, String> {
        let tls = crate::tls::client_trusting(more);
        let tls = tls.map_err(|error| format!("failed to set up TLS: {error}"))?;
        Ok(Self { tls, proxies })
    }

    /// Connects to the server of an absolute `http` or `https` address.
    pub async fn connect(&self, to: &Uri) -> Result<Channel, Unreached> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let mut direct = self.over(tcp);
        let is_https = to.scheme() == Some(&Scheme::HTTPS);
        let proxy = self.proxies.intercept(to);
        if let Some(proxy) = &proxy
            && !matches!(proxy.uri().scheme_str(), Some("http" | "https"))
        {
            let why =
                "the environment names a SOCKS proxy, which is not supported: use an `http://` one";
            return Err(Unreached::Down(why.into()));
        }
        match proxy {
            None => {
                let io = direct.call(to.clone()).await;
                Channel::new(io.map_err(|e| unreached(&*e))?, None).await
            }
            Some(proxy) if is_https => {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), direct);
                if let Some(auth) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(auth.clone());
                }
                let io = self.over(tunnel).call(to.clone()).await;
                Channel::new(io.map_err(|e| through(unreached(&*e)))?, None).await
            }
            Some(proxy) => {
                let io = direct.call(proxy.uri().clone()).await;
                let io = io.map_err(|e| through(unreached(&*e)))?;
                Channel::new(io, Some(proxy)).await
            }
        }
    }

    fn over<C>(&self, connector: C) -> HttpsConnector<C> {
        HttpsConnectorBuilder::new()
            .with_tls_config(self.tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector)
    }
}

/// A connection to one server, on which one request follows the other.
pub struct Channel {
    sender: SendRequest<Full<Bytes>>,
    /// The proxy that gets each request whole, as it does without TLS.
    proxy: Option<Intercept>,
}

impl Channel {
    async fn new<I>(io: I, proxy: Option<Intercept>) -> Result<Self, Unreached>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let shaken = http1::handshake(io).await;
        let (sender, connection) = shaken.map_err(|error| unreached(&error))?;
        // Its errors are those of the requests too.
        tokio::spawn(connection);
        Ok(Self { sender, proxy })
    }

    /// Sends a request whose address is absolute, once the answer before has been read or dropped.
    pub async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Unreached> {
        let uri = request.uri().clone();
        if let Some(host) = uri.authority() {
            let host = host.as_str().rsplit('@').next().unwrap_or_default();
            let host = HeaderValue::from_str(host).map_err(|error| unreached(&error))?;
            request.headers_mut().insert(HOST, host);
        }
        match &self.proxy {
            Some(proxy) => {
                if let Some(auth) = proxy.basic_auth() {
                    let headers = request.headers_mut();
                    headers.insert(PROXY_AUTHORIZATION, auth.clone());
                }
            }
            None => {
                let path = uri.path_and_query().cloned();
                let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
                *request.uri_mut() = path.into();
            }
        }
        self.sender.ready().await.map_err(|e| unreached(&e))?;
        (self.sender.send_request(request).await).map_err(|e| unreached(&e))
    }
}

fn through(error: Unreached) -> Unreached {
    match error {
        Unreached::Down(why) => Unreached::Down(format!("through the environment's proxy: {why}")),
        error => error,
    }
}

fn unreached(error: &(dyn StdError + 'static)) -> Unreached {
    let mut last = error;
    for cause in causes(error) {
        if let Some(rustls::Error::InvalidCertificate(wrong)) = cause.downcast_ref() {
            return Unreached::Untrusted(untrusted(wrong));
        }
        last = cause;
    }
    Unreached::Down(last.to_string())
}

/// What is wrong with a server's certificate. A self-signed one that is trusted as an authority is
/// taken by OpenSSL, and not by webpki.
fn untrusted(wrong: &rustls::CertificateError) -> String {
    use rustls::CertificateError::UnknownIssuer;
    let text = wrong.to_string();
    if text.contains("CaUsedAsEndEntity") {
        return "its certificate is that of an authority (CA:TRUE), which cannot stand for a server: \
                let the authority sign one for the server"
            .into();
    }
    match wrong {
        UnknownIssuer => "no authority that this machine trusts has signed its certificate".into(),
        _ => format!("its certificate is not valid: {text}"),
    }
}

/// The error and its causes, down to the innermost, which is the specific one.
pub fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        // The source of an `io::Error` is that of the error in it.
        let inner = (error.downcast_ref::<io::Error>()).and_then(io::Error::get_ref);
        match inner {
            Some(inner) => Some(inner as _),
            None => error.source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn without_tls_a_proxy_gets_the_request_whole() {
        let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://ada:secret@{}", proxy.local_addr().unwrap());
        let proxies = Matcher::builder().all(address).no("127.0.0.1").build();
        let outbound = Outbound::through(proxies).unwrap();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = proxy.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&head[..read]).to_lowercase()
        });
        let to: Uri = "http://forge.invalid:81/x?y".parse().unwrap();
        let mut channel = outbound.connect(&to).await.unwrap();
        let request = Request::get(to).body(Full::default()).unwrap();
        let answer = channel.send(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "ok");
        let head = asked.await.unwrap();
        assert!(
            head.starts_with("get http://forge.invalid:81/x?y http/1.1\r\n"),
            "{head}"
        );
        assert!(head.contains("host: forge.invalid:81\r\n"), "{head}");
        assert!(
            head.contains("proxy-authorization: basic ywrhonnly3jlda=="),
            "{head}"
        );
        // One that is excepted is reached directly, where nobody listens.
        let direct = outbound
            .connect(&Uri::from_static("http://127.0.0.1:1/"))
            .await;
        assert!(direct.err().unwrap().to_string().contains("refused"));
        // One that speaks no HTTP is not asked.
        let socks = Matcher::builder().all("socks5://127.0.0.1:1").build();
        let outbound = Outbound::through(socks).unwrap();
        let error = outbound
            .connect(&Uri::from_static("https://forge.invalid/"))
            .await;
        assert!(error.err().unwrap().to_string().contains("SOCKS"));
    }
}
