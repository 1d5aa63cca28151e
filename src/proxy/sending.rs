//! One sending of a request, and the wait for what comes of it.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;

use super::body::RequestBody;
use super::counters::Outcome;
use super::multiplexed::Lease;
use super::pool::Upstream;
use super::served::Served;
use super::via::{Via, to_http2};
use super::watch::Watch;

/// How one sending of a request ended.
pub enum Sent {
    Answer(Response<Incoming>, Via),
    /// Not one byte of it was written.
    Unsent(Request<RequestBody>),
    Failed(hyper::Error),
    /// The request's body stopped coming.
    Stalled,
    Ended(Outcome),
}

/// Sends and waits, for as long as the route allows.
pub async fn send(served: &Served, watch: &Watch, via: Via, request: Request<RequestBody>) -> Sent {
    if matches!(request.body(), RequestBody::Empty) {
        let limit = served.route.settings.first_byte_timeout_ms;
        watch.upstream.set_in(limit);
    }
    let sent = match via {
        Via::Http1(upstream) => http1(served, watch, upstream, request).await,
        Via::Http2(lease) => http2(served, watch, lease, request).await,
    };
    watch.upstream.clear();
    sent
}

async fn http1(
    served: &Served,
    watch: &Watch,
    mut upstream: Box<Upstream>,
    request: Request<RequestBody>,
) -> Sent {
    let Upstream {
        sender, connection, ..
    } = &mut *upstream;
    let mut answer = pin!(sender.try_send_request(request));
    let result = std::future::poll_fn(|cx| {
        let done = Pin::new(&mut *connection).poll(cx).is_ready();
        // Only the connection, which was just polled, brings an answer: nothing else need wake
        // this task.
        let mut noop = Context::from_waker(Waker::noop());
        if let Poll::Ready(answer) = answer.as_mut().poll(&mut noop) {
            return Poll::Ready(Ok(answer));
        }
        if done {
            return Poll::Ready(Err(Outcome::Closed));
        }
        watch.register(cx.waker());
        match waiting_ends(served, watch) {
            Some(outcome) => Poll::Ready(Err(outcome)),
            None => Poll::Pending,
        }
    })
    .await;
    match result {
        Ok(Ok(response)) => Sent::Answer(response, Via::Http1(upstream)),
        Ok(Err(error)) => unsent_or_failed(error),
        Err(outcome) => Sent::Ended(outcome),
    }
}

async fn http2(
    served: &Served,
    watch: &Watch,
    mut lease: Lease,
    mut request: Request<RequestBody>,
) -> Sent {
    to_http2(&mut request);
    let mut answer = pin!(lease.sender.try_send_request(request));
    let result = std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(answer.map_err(unsent_or_failed));
        }
        watch.register(cx.waker());
        // The body is read by a task of the connection's own, which no deadline wakes.
        if watch.client.has_passed() {
            return Poll::Ready(Err(Sent::Stalled));
        }
        match waiting_ends(served, watch) {
            Some(outcome) => Poll::Ready(Err(Sent::Ended(outcome))),
            None => Poll::Pending,
        }
    })
    .await;
    match result {
        Ok(response) => Sent::Answer(response, Via::Http2(lease)),
        Err(sent) => sent,
    }
}

fn waiting_ends(served: &Served, watch: &Watch) -> Option<Outcome> {
    if served.is_aborted() {
        return Some(Outcome::Drained);
    }
    watch.upstream.has_passed().then_some(Outcome::Timeout)
}

fn unsent_or_failed(mut error: TrySendError<Request<RequestBody>>) -> Sent {
    match error.take_message() {
        Some(request) => Sent::Unsent(request),
        None => Sent::Failed(error.into_error()),
    }
}
