//! The body of an app's response on its way to the client. Polling it drives the connection to the app
//! directly, so there is no second task to wake.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;

use crate::proxy::downstream::response;
use crate::proxy::route::claim::Claim;
use crate::proxy::route::counters::Outcome;
use crate::proxy::upstream::connection::UpstreamError;
use crate::proxy::upstream::via::Via;
use crate::proxy::watch::{Watch, now_ms};

/// The body of a response to the client.
pub type ResponseBody = response::ResponseBody<Download>;

/// Why a client got only a part of a response.
#[derive(Debug, Error)]
pub enum DownloadError {
    #[error("the app closed the connection in the middle of its response")]
    Cut,
    #[error("the app sent nothing for too long")]
    UpstreamIdle,
    #[error("the client sent nothing for too long")]
    ClientIdle,
    #[error("the drain's deadline has passed")]
    Drained,
}

/// An app's response, and everything that it holds until it has been read to the end.
pub struct Download {
    /// `None` once the connection has ended or has been given back to its pool.
    pub via: Option<Via>,
    pub claim: Claim,
    pub watch: Arc<Watch>,
    /// How long the app may be silent, in milliseconds; 0: no limit, because silence is normal here.
    pub idle_ms: u64,
    pub events: Option<EventStream>,
    ended: bool,
    /// An error that is reported only after the client has received what came before it.
    broken: Option<DownloadError>,
}

/// What must be known to end a `text/event-stream` between two events.
#[derive(Default)]
pub struct EventStream {
    /// In the middle of an event, which a blank line ends.
    mid_event: bool,
    line_empty: bool,
    /// When to end, in `now_ms` time. Set once the route is draining.
    end_at: Option<u64>,
}

impl Body for Download {
    type Data = Bytes;
    type Error = DownloadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        self.get_mut().poll_next(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && (self.ended || self.is_answered())
    }

    fn size_hint(&self) -> SizeHint {
        let via = self.via.as_ref();
        via.map_or_else(SizeHint::default, Via::left)
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

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
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
            // Now it is the client's turn, and the time it takes is not the app's silence.
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
                    // On an error hyper discards everything that it has not written yet, even the head:
                    // let it write first. A client that has half a response knows more than one that
                    // has none, which may send its request again.
                    self.broken = Some(self.fail(Outcome::Closed, DownloadError::Cut));
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
        if self.claim.share().is_aborted() {
            return Poll::Ready(Some(Err(
                self.fail(Outcome::Drained, DownloadError::Drained)
            )));
        }
        if matches!(self.via, Some(Via::Http2(_))) && self.watch.client.has_passed() {
            // Another task reads the request's body, and no deadline wakes that task: check here.
            return Poll::Ready(Some(Err(
                self.fail(Outcome::Client, DownloadError::ClientIdle)
            )));
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
                let error = self.fail(Outcome::Timeout, DownloadError::UpstreamIdle);
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
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        match &mut self.via {
            Some(via) => via.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_answered(&self) -> bool {
        self.via.as_ref().is_some_and(Via::is_answered)
    }

    /// Whether this is an event stream that may end now: its turn in the drain has come, and no event
    /// is half sent.
    fn may_end_now(&mut self) -> bool {
        let Some(events) = &mut self.events else {
            return false;
        };
        let Some(closing) = *self.claim.share().closing.borrow() else {
            return false;
        };
        let end_at = *events.end_at.get_or_insert_with(|| {
            // The ends are spread out, so that the browsers do not all reconnect at once, and only over
            // the first half of the window, so that even the last stream can finish its event before
            // the drain's deadline.
            let window = (closing.window / 2).saturating_sub(closing.from.elapsed());
            let part = spread(Arc::as_ptr(&self.watch) as u64);
            now_ms() + (window.as_millis() as u64 * part) / 1000
        });
        if now_ms() < end_at {
            self.watch.upstream.set_in(end_at.saturating_sub(now_ms()));
            return false;
        }
        // An event cut in half is lost, so wait for its end; the drain's deadline still applies.
        !events.mid_event
    }

    fn fail(&mut self, outcome: Outcome, error: DownloadError) -> DownloadError {
        self.ended = true;
        self.via = None;
        self.claim.end(outcome);
        error
    }

    /// The whole response has been read: gives the connection back to its pool and counts the request.
    fn finish(&mut self) {
        self.ended = true;
        if let Some(Via::Http1(upstream)) = self.via.take()
            && !self.claim.share().is_draining()
            && let Some(target) = self.claim.target()
        {
            target.pool.put(upstream);
        }
        self.claim.end(Outcome::Answered);
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // hyper drops a body of known length as soon as it has the last byte, without polling for the
        // end.
        if !self.ended && self.is_answered() {
            self.finish();
        }
        if !self.ended && self.claim.share().is_aborted() {
            self.claim.end(Outcome::Drained);
        }
        self.watch.upstream.clear();
        self.watch.taking.clear();
        self.watch.request_done();
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

/// Maps any number evenly to 0..1000.
fn spread(n: u64) -> u64 {
    (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 1000
}
