//! How an authority is reached: each request over a connection of its own, with a deadline.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::outbound::Outbound;

const DEADLINE: Duration = Duration::from_secs(30);

/// The longest answer, in bytes. A chain of certificates is far shorter.
const LONGEST: usize = 1 << 20;

/// The longest time for which an authority's request to wait is honoured.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone)]
pub struct Http {
    outbound: Arc<Outbound>,
    /// For how long the authority last asked to wait.
    pub patience: Patience,
}

#[derive(Clone, Default)]
pub struct Patience(Arc<Mutex<Option<Duration>>>);

impl Patience {
    pub fn take(&self) -> Option<Duration> {
        self.0.lock().take()
    }
}

impl Http {
    /// Trusts the authorities in a PEM file besides those that the system trusts. Blocks.
    pub fn new(more: Option<&Path>) -> Result<Self, String> {
        let more = more.map_or(Ok(Vec::new()), |path| {
            let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
            read.map_err(|error| {
                format!("`proxy.acme.directory_ca`: `{}`: {error}", path.display())
            })
        });
        Ok(Self {
            outbound: Arc::new(Outbound::trusting(more?)?),
            patience: Patience::default(),
        })
    }

    async fn exchange(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let other = |why: String| Error::Other(why.into());
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|it| it.to_bytes());
        let body = Full::new(body.unwrap_or_default());
        let host = head.uri.authority().map_or("", |it| it.as_str()).to_owned();
        let talk = async {
            let mut channel = self.outbound.connect(&head.uri).await?;
            let answer = channel.send(Request::from_parts(head, body)).await?;
            let (head, body) = answer.into_parts();
            Ok((head, Limited::new(body, LONGEST).collect().await))
        };
        let talked = tokio::time::timeout(DEADLINE, talk).await;
        let talked = talked.map_err(|_| other(format!("`{host}` does not answer in time")))?;
        let (head, body) = talked.map_err(|error: crate::outbound::Unreached| {
            other(format!("`{host}` cannot be reached: {error}"))
        })?;
        let body =
            body.map_err(|error| other(format!("`{host}` broke off its answer: {error}")))?;
        let status = head.status;
        if !status.is_success() {
            let wait = head.headers.get(header::RETRY_AFTER);
            let wait = wait.and_then(|it| it.to_str().ok()?.trim().parse().ok());
            let wait = wait.map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT));
            *self.patience.0.lock() = wait;
            let kind = head.headers.get(header::CONTENT_TYPE);
            let explained = kind.and_then(|kind| kind.to_str().ok());
            let explained = explained.and_then(|kind| kind.split(';').next());
            if !explained.is_some_and(|kind| kind.trim().ends_with("json")) {
                return Err(other(format!("`{host}` answers {status}")));
            }
        }
        let body = Full::new(body.to_bytes());
        Ok(BytesResponse::from(Response::from_parts(head, body)))
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().exchange(request))
    }
}
