//! What carries a request to its app, and whether a request may be sent a second time.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Request, Uri, Version, header};
use http_body::{Body, Frame, SizeHint};

use super::connection::{Upstream, UpstreamError};
use super::http2::Lease;
use super::replay::Replay;
use super::request_body::RequestBody;
use super::target::Target;

/// A request that cannot be sent twice is only sent over a connection that has been idle for less than
/// this. If the app were just closing an idle connection, there would be no way to know whether it had
/// processed the request. No app in use closes after so short a time, and a new connection costs some
/// 50 us.
const FRESH_ENOUGH: Duration = Duration::from_millis(50);

/// A connection to an app, or one stream of it.
pub enum Via {
    Http1(Box<Upstream>),
    Http2(Lease),
}

impl Via {
    /// An open, idle connection. `replayable`: the request may be sent twice.
    pub fn idle(target: &Target, replayable: bool) -> Option<Self> {
        let limit = target.dialing.keep_alive;
        if target.dialing.h2c {
            // An app that closes an HTTP/2 connection says which requests it has not processed.
            return target.multiplexed.take(limit).map(Self::Http2);
        }
        let limit = match replayable {
            true => limit,
            false => limit.min(FRESH_ENOUGH),
        };
        target.pool.take(limit).map(Self::Http1)
    }

    pub async fn connect(target: &Target) -> io::Result<Self> {
        let (limit, longest) = (target.dialing.connect_timeout, target.dialing.head);
        if target.dialing.h2c {
            let connect = target.multiplexed.connect(target.address, limit, longest);
            let lease = Box::pin(connect).await?;
            return Ok(Self::Http2(lease));
        }
        let upstream = Upstream::connect(target.address, limit, longest).await?;
        Ok(Self::Http1(upstream))
    }

    /// The next frame of the response's body.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        match self {
            Self::Http1(upstream) => upstream.poll_frame(cx),
            Self::Http2(lease) => match &mut lease.answer {
                Some(body) => {
                    let frame = Pin::new(body).poll_frame(cx);
                    frame.map(|frame| frame.map(|frame| frame.map_err(UpstreamError::Http2)))
                }
                None => Poll::Ready(None),
            },
        }
    }

    /// Whether the whole response has been read.
    pub fn is_answered(&self) -> bool {
        match self {
            Self::Http1(upstream) => upstream.is_answered(),
            Self::Http2(lease) => lease.answer.as_ref().is_none_or(Body::is_end_stream),
        }
    }

    /// How much of the response's body is still to come.
    pub fn left(&self) -> SizeHint {
        match self {
            Self::Http1(upstream) => upstream
                .left()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Http2(lease) => {
                let body = lease.answer.as_ref();
                body.map_or_else(SizeHint::default, Body::size_hint)
            }
        }
    }

    fn reused(&self) -> bool {
        match self {
            Self::Http1(upstream) => upstream.reused,
            Self::Http2(lease) => lease.reused,
        }
    }
}

/// What is kept of a request, so that it can be sent again.
pub struct Spare {
    /// A copy, because the HTTP/2 client consumes the request; HTTP/1 leaves it in place.
    kept: Option<(Request<RequestBody>, Option<Arc<Replay>>)>,
    /// Whether sending it twice has the same effect as sending it once.
    harmless: bool,
}

impl Spare {
    /// Keeps what is needed of a request that is about to be sent. `harmless`: it is idempotent and has
    /// no body.
    pub fn of(via: &Via, request: &mut Request<RequestBody>, harmless: bool) -> Self {
        let harmless = harmless && via.reused();
        let kept = match via {
            Via::Http1(_) => None,
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
                Some((copy(request), replay))
            }
        };
        Self { kept, harmless }
    }

    /// Makes `request` what it was before, when nothing of it was sent. False: its body cannot be
    /// restored.
    pub fn restore(self, request: &mut Request<RequestBody>) -> bool {
        let Some((mut kept, replay)) = self.kept else {
            return true;
        };
        if let Some(replay) = replay {
            let Some(again) = replay.again() else {
                return false;
            };
            *kept.body_mut() = RequestBody::Replayed(again);
        }
        *request = kept;
        true
    }

    /// Whether the same app may get the request again after this error: repeating it does no harm, or
    /// the app said that it did not process it.
    pub fn may_repeat(&self, error: &UpstreamError) -> bool {
        self.harmless || is_unprocessed(error)
    }
}

/// Whether the app said over HTTP/2 that it has not processed the request: it refused the stream, or it
/// is shutting down and the stream is beyond the last one that it accepts.
fn is_unprocessed(error: &UpstreamError) -> bool {
    let UpstreamError::Http2(error) = error else {
        return false;
    };
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

/// Converts the request to HTTP/2: the host moves to `:authority`, and the framing fields go
/// (RFC 9113, 8.2.2 and 8.3.1).
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
