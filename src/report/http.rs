//! Requests to a forge. Redirects are not followed: the token is for the configured address only.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::forge::Request;

/// From the first byte of the name's look-up to the last of the answer.
const DEADLINE: Duration = Duration::from_secs(20);
/// No answer that is read here is longer.
const CAP: usize = 1 << 20;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `null` where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

pub struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Http {
    /// An error is a sentence.
    pub fn new() -> Result<Self, String> {
        let mut roots = rustls::RootCertStore::empty();
        // A single root that cannot be read must not lock every forge out.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        // Deployments are far apart: a connection kept from the last one would be dead.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self(client))
    }

    /// Sends `request` to the API at `api` and reads the answer. An error is a sentence without the
    /// headers' values.
    pub async fn send(
        &self,
        api: &str,
        request: &Request,
        headers: &[(&'static str, String)],
    ) -> Result<Answer, String> {
        match tokio::time::timeout(DEADLINE, self.exchange(api, request, headers)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!(
                "`{api}` did not answer in {} s",
                DEADLINE.as_secs()
            )),
        }
    }

    async fn exchange(
        &self,
        api: &str,
        request: &Request,
        headers: &[(&'static str, String)],
    ) -> Result<Answer, String> {
        let mut built = http::Request::builder()
            .method(request.method.clone())
            .uri(format!("{api}{}", request.path))
            .header("user-agent", concat!("cutover/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            built = built.header(*name, value);
        }
        let body = match &request.body {
            Some(body) => {
                built = built.header("content-type", "application/json");
                body.to_string()
            }
            None => String::new(),
        };
        let built = built
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| "the token is not one line of visible characters".to_owned())?;
        let answer = self.0.request(built).await;
        let answer =
            answer.map_err(|error| format!("`{api}` does not answer: {}", cause(&error)))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, CAP).collect().await;
        let body = body.map_err(|error| format!("the answer of `{api}` broke off: {error}"))?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }
}

/// The innermost reason, which is the one that says something.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
