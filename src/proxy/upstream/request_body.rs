//! Bodies on their way through. The response body drives the connection that it comes from: there
//! is no other task to wake.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::*;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;

use super::connection::Broken;
use super::replay::Replayed;
use super::via::Via;
use crate::proxy::route::counters::Outcome;
use crate::proxy::route::share::Claim;
use crate::proxy::watch::{Watch, now_ms};

#[derive(Debug, Error)]
pub enum BodyError {
    #[error("the request body is larger than allowed")]
    TooLarge,
    #[error("the client sent nothing for too long")]
    ClientIdle,
    #[error("the app sent nothing for too long")]
    UpstreamIdle,
    #[error("the app closed the connection in the middle of its answer")]
    Cut,
    #[error("the drain's deadline has passed")]
    Drained,
    #[error("the request is being sent again")]
    Again,
    #[error("the client's body cannot be read: {0}")]
    Client(#[source] hyper::Error),
}

/// What is sent to the app.
pub enum RequestBody {
    Empty,
    Stream(Upload),
    /// One of which the beginning is kept.
    Replayed(Replayed),
}

pub struct Upload {
    pub incoming: Incoming,
    pub watch: Arc<Watch>,
    pub left: u64,
    /// 0: silence is normal here.
    pub idle_ms: u64,
    pub first_byte_ms: u64,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(upload) => upload.poll_frame(cx),
            Self::Replayed(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(upload) => upload.incoming.is_end_stream(),
            Self::Replayed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(upload) => upload.incoming.size_hint(),
            // A length that is known stands in the header.
            Self::Replayed(_) => SizeHint::default(),
        }
    }
}

impl Upload {
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let watch = &self.watch;
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                // The client is waited for, not the app.
                watch.upstream.clear();
                if watch.client.has_passed() {
                    return Poll::Ready(Some(Err(BodyError::ClientIdle)));
                }
                if !watch.client.is_set() && self.idle_ms > 0 {
                    watch.client.set_in(self.idle_ms);
                }
                return Poll::Pending;
            }
        };
        watch.client.clear();
        // From here on the app has to take what it got, and then to answer.
        watch.upstream.set_in(self.first_byte_ms);
        let frame = match frame {
            Some(frame) => frame.map_err(BodyError::Client)?,
            None => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref() {
            let Some(left) = self.left.checked_sub(data.len() as u64) else {
                watch.too_large.store(true, Relaxed);
                return Poll::Ready(Some(Err(BodyError::TooLarge)));
            };
            self.left = left;
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

/// What is sent to the client.
pub enum ResponseBody {
    Full(Option<Bytes>),
    Stream(Box<Download>),
}

/// An app's answer, and everything that it holds until it has been read.
pub struct Download {
    /// Gone when the connection has ended or was given back.
    pub via: Option<Via>,
    pub claim: Claim,
    pub watch: Arc<Watch>,
    /// 0: silence is normal here.
    pub idle_ms: u64,
    pub events: Option<EventStream>,
    ended: bool,
    /// What went wrong, to be said as soon as the client has what came before it.
    broken: Option<BodyError>,
}

/// What must be known to end a `text/event-stream` cleanly.
#[derive(Default)]
pub struct EventStream {
    /// Inside an event, ended by a blank line.
    mid_event: bool,
    line_empty: bool,
    /// When to end, in `now_ms` time, once the route drains.
    end_at: Option<u64>,
}

impl ResponseBody {
    pub fn full(bytes: Bytes) -> Self {
        Self::Full(Some(bytes))
    }

    pub fn empty() -> Self {
        Self::Full(None)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Stream(download) => download.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Stream(download) => {
                download.broken.is_none() && (download.ended || download.is_answered())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Stream(download) => {
                let via = download.via.as_ref();
                via.map_or_else(SizeHint::default, Via::left)
            }
        }
    }
}

impl Download {
    pub fn new(via: Via, claim: Claim, watch: Arc<Watch>, idle_ms: u64, events: bool) -> Self {
        Self {
            via: Some(via),
            claim,
            watch,
            idle_ms,
            events: events.then(EventStream::default),
            ended: false,
            broken: None,
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let takes_ms = self.watch.takes_ms.load(Relaxed);
        if takes_ms > 0 {
            self.watch.taking.clear();
        }
        if let Poll::Ready(frame) = self.poll_upstream(cx) {
            // The client's turn: how long it takes is not the app's silence.
            self.watch.upstream.clear();
            if takes_ms > 0 {
                self.watch.taking.set_in(takes_ms);
            }
            return Poll::Ready(match frame {
                Some(Ok(frame)) => {
                    if let (Some(events), Some(data)) = (&mut self.events, frame.data_ref()) {
                        events.follow(data);
                    }
                    Some(Ok(frame))
                }
                Some(Err(_)) => {
                    // hyper throws away what it has not written, even the head, when it hears of
                    // an error: let it write first. A client with half an answer knows more than
                    // one with none, which may send its request again.
                    self.broken = Some(self.fail(Outcome::Closed, BodyError::Cut));
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                None => {
                    self.finish();
                    None
                }
            });
        }
        self.watch.register(cx.waker());
        if self.claim.served().is_aborted() {
            return Poll::Ready(Some(Err(self.fail(Outcome::Drained, BodyError::Drained))));
        }
        if matches!(self.via, Some(Via::Http2(_))) && self.watch.client.has_passed() {
            // The request's body is read by another task, which no deadline wakes.
            return Poll::Ready(Some(Err(self.fail(Outcome::Client, BodyError::ClientIdle))));
        }
        if self.idle_ms == 0 {
            self.watch.upstream.clear();
        }
        if self.may_end_now() {
            self.ended = true;
            self.via = None;
            self.claim.end(Outcome::Answered);
            return Poll::Ready(None);
        }
        if self.idle_ms > 0 {
            if self.watch.upstream.has_passed() {
                let error = self.fail(Outcome::Timeout, BodyError::UpstreamIdle);
                return Poll::Ready(Some(Err(error)));
            }
            if !self.watch.upstream.is_set() {
                self.watch.upstream.set_in(self.idle_ms);
            }
        }
        Poll::Pending
    }

    fn poll_upstream(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.via {
            Some(via) => via.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_answered(&self) -> bool {
        self.via.as_ref().is_some_and(Via::is_answered)
    }

    /// Whether this is an event stream whose turn to end has come.
    fn may_end_now(&mut self) -> bool {
        let Some(events) = &mut self.events else {
            return false;
        };
        let Some(closing) = *self.claim.served().closing.borrow() else {
            return false;
        };
        let end_at = *events.end_at.get_or_insert_with(|| {
            // Spread, so that the browsers do not all come back at once; over the first half, so
            // that the last one, too, can end its event before the drain's deadline.
            let window = (closing.window / 2).saturating_sub(closing.from.elapsed());
            let part = spread(Arc::as_ptr(&self.watch) as u64);
            now_ms() + (window.as_millis() as u64 * part) / 1000
        });
        if now_ms() < end_at {
            self.watch.upstream.set_in(end_at.saturating_sub(now_ms()));
            return false;
        }
        // An event that is cut in half is lost; the drain's deadline still holds.
        !events.mid_event
    }

    fn fail(&mut self, outcome: Outcome, error: BodyError) -> BodyError {
        self.ended = true;
        self.via = None;
        self.claim.end(outcome);
        error
    }

    /// The whole answer has been read.
    fn finish(&mut self) {
        self.ended = true;
        if let Some(Via::Http1(upstream)) = self.via.take()
            && !self.claim.served().is_draining()
            && let Some(target) = self.claim.target()
        {
            target.pool.put(upstream);
        }
        self.claim.end(Outcome::Answered);
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // hyper drops a body of known length as soon as it has its last byte.
        if !self.ended && self.is_answered() {
            self.finish();
        }
        if !self.ended && self.claim.served().is_aborted() {
            self.claim.end(Outcome::Drained);
        }
        self.watch.upstream.clear();
        self.watch.taking.clear();
        self.watch.answered();
    }
}

impl EventStream {
    fn follow(&mut self, data: &[u8]) {
        for &byte in data {
            match byte {
                b'\r' => {}
                b'\n' => {
                    if self.line_empty {
                        self.mid_event = false;
                    }
                    self.line_empty = true;
                }
                _ => {
                    self.mid_event = true;
                    self.line_empty = false;
                }
            }
        }
    }
}

/// 0..1000, evenly, from any number.
fn spread(n: u64) -> u64 {
    (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 1000
}
