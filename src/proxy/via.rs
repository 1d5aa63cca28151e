//! What carries a request to its app, and how a request is told to be sendable once more.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{Request, Uri, Version, header};

use super::body::RequestBody;
use super::multiplexed::Lease;
use super::pool::Upstream;
use super::replay::Replay;
use super::served::Target;
use super::table::Settings;

/// A request that may have an effect goes only onto a connection that has been idle for less than
/// this. Should the app be closing an idle connection just then, nobody could tell whether it has
/// processed the request, and it must not be sent twice. No app in use closes after so short a
/// time, and a new connection costs some 50 us.
const FRESH_ENOUGH: Duration = Duration::from_millis(50);

/// A connection to an app, or a part of one.
pub enum Via {
    Http1(Box<Upstream>),
    Http2(Lease),
}

impl Via {
    /// One that stands already and may carry a request. `idempotent`: the request's.
    pub fn idle(target: &Target, settings: &Settings, idempotent: bool) -> Option<Self> {
        let limit = Duration::from_millis(settings.keep_alive_ms);
        if settings.h2c {
            // An app that closes such a connection says which requests it has not processed.
            return target.multiplexed.take(limit).map(Self::Http2);
        }
        let limit = match idempotent {
            true => limit,
            false => limit.min(FRESH_ENOUGH),
        };
        target.pool.take(limit).map(Self::Http1)
    }

    pub async fn connect(target: &Target, settings: &Settings) -> io::Result<Self> {
        let limit = Duration::from_millis(settings.connect_timeout_ms);
        if settings.h2c {
            let lease = target.multiplexed.connect(target.address, limit).await?;
            return Ok(Self::Http2(lease));
        }
        let upstream = Upstream::connect(target.address, limit).await?;
        Ok(Self::Http1(upstream))
    }

    fn reused(&self) -> bool {
        match self {
            Self::Http1(upstream) => upstream.reused,
            Self::Http2(lease) => lease.reused,
        }
    }
}

/// What is kept of a request to send it once more.
pub struct Spare {
    request: Request<RequestBody>,
    body: Option<Arc<Replay>>,
    /// Asking twice is the same as once.
    harmless: bool,
}

impl Spare {
    /// Of a request that is about to be sent. `harmless`: idempotent and without a body.
    pub fn of(via: &Via, request: &mut Request<RequestBody>, harmless: bool) -> Option<Self> {
        let harmless = harmless && via.reused();
        match via {
            Via::Http1(_) => harmless.then(|| Self {
                request: copy(request),
                body: None,
                harmless,
            }),
            // Over HTTP/2 an app may say that it has not processed a request.
            Via::Http2(_) => {
                let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
                let (body, replay) = match body {
                    RequestBody::Empty => (RequestBody::Empty, None),
                    RequestBody::Stream(upload) => {
                        let first = Replay::begin(upload);
                        let replay = first.replay();
                        (RequestBody::Replayed(first), Some(replay))
                    }
                    RequestBody::Replayed(again) => {
                        let replay = again.replay();
                        (RequestBody::Replayed(again), Some(replay))
                    }
                };
                *request.body_mut() = body;
                Some(Self {
                    request: copy(request),
                    body: replay,
                    harmless,
                })
            }
        }
    }

    /// The request once more, after nothing of it was sent.
    pub fn unsent(self) -> Option<Request<RequestBody>> {
        let mut request = self.request;
        if let Some(replay) = self.body {
            *request.body_mut() = RequestBody::Replayed(replay.again()?);
        }
        Some(request)
    }

    /// The request once more, if it may be sent again after it failed like this: the app closed the
    /// connection before it saw the request, or while it did, or said that it did not process it.
    pub fn failed(self, error: &hyper::Error) -> Option<Request<RequestBody>> {
        (self.harmless || is_unprocessed(error)).then(|| self.unsent())?
    }
}

/// Whether the app said over HTTP/2 that it has not processed the request: it refused the stream, or
/// it is going away and the stream is beyond the last one that it takes.
fn is_unprocessed(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (refused || error.is_go_away());
        }
        source = error.source();
    }
    false
}

fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.version_mut() = request.version();
    copy
}

/// The request as HTTP/2 has it: the host stands in `:authority`, and nothing speaks of framing.
pub fn to_http2(request: &mut Request<RequestBody>) {
    let headers = request.headers_mut();
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    headers.remove(header::UPGRADE);
    let host = headers.get(header::HOST).map(|host| host.as_bytes());
    let Some(authority) = host.and_then(|host| Authority::try_from(host).ok()) else {
        return;
    };
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(header::HOST);
    }
}
