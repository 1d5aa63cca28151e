//! Sends a request once, and waits for the response.

use std::pin::pin;
use std::task::Poll;

use http::{Request, Response, StatusCode};
use hyper::client::conn::TrySendError;

use super::extended_connect::{asks_for_websocket, into_connect, switch};
use crate::proxy::route::counters::Outcome;
use crate::proxy::route::share::LiveShare;
use crate::proxy::upstream::connection::{Upstream, UpstreamError};
use crate::proxy::upstream::http2::Lease;
use crate::proxy::upstream::request_body::RequestBody;
use crate::proxy::upstream::via::{Via, to_http2};
use crate::proxy::watch::Watch;

/// How one attempt to send a request ended.
pub enum Sent {
    Answer(Response<()>, Via),
    /// Not one byte was written: the request is unchanged.
    Unsent,
    Failed(UpstreamError),
    /// The client stopped sending the request's body.
    Stalled,
    Ended(Outcome),
}

/// Sends the request and waits for the response for as long as the route allows. Takes the body out of
/// the request; over HTTP/2, takes the whole request.
pub async fn send(
    share: &LiveShare,
    watch: &Watch,
    via: Via,
    request: &mut Request<RequestBody>,
) -> Sent {
    if matches!(request.body(), RequestBody::Empty) {
        let limit = share.policy.first_byte_timeout_ms;
        watch.upstream.set_in(limit);
    }
    let sent = match via {
        Via::Http1(upstream) => http1(share, watch, upstream, request).await,
        // Boxed, like everything else that is rare: otherwise every request's future would be as large
        // as this.
        Via::Http2(lease) => Box::pin(http2(share, watch, lease, request)).await,
    };
    watch.upstream.clear();
    sent
}

async fn http1(
    share: &LiveShare,
    watch: &Watch,
    mut upstream: Box<Upstream>,
    request: &mut Request<RequestBody>,
) -> Sent {
    upstream.begin(request);
    let result = std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = upstream.poll_answer(cx) {
            return Poll::Ready(Ok(answer));
        }
        watch.register(cx.waker());
        match waiting_ends(share, watch) {
            Some(outcome) => Poll::Ready(Err(outcome)),
            None => Poll::Pending,
        }
    })
    .await;
    match result {
        Ok(Ok(answer)) => Sent::Answer(answer, Via::Http1(upstream)),
        Ok(Err(UpstreamError::Unsent)) => {
            upstream.give_back(request);
            Sent::Unsent
        }
        Ok(Err(error)) => Sent::Failed(error),
        Err(outcome) => Sent::Ended(outcome),
    }
}

async fn http2(
    share: &LiveShare,
    watch: &Watch,
    mut lease: Lease,
    request: &mut Request<RequestBody>,
) -> Sent {
    let key = match asks_for_websocket(request) && lease.takes_websockets().await {
        true => Some(into_connect(request)),
        false => None,
    };
    to_http2(request);
    let taken = std::mem::replace(request, Request::new(RequestBody::Empty));
    let mut answer = pin!(lease.sender.try_send_request(taken));
    let result = std::future::poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(answer.map_err(|error| unsent_or_failed(error, request)));
        }
        watch.register(cx.waker());
        // The connection's own task reads the body, and no deadline wakes that task: check here.
        if watch.client.has_passed() {
            return Poll::Ready(Err(Sent::Stalled));
        }
        match waiting_ends(share, watch) {
            Some(outcome) => Poll::Ready(Err(Sent::Ended(outcome))),
            None => Poll::Pending,
        }
    })
    .await;
    match result {
        Ok(mut answer) => {
            if let Some(key) = key.filter(|_| answer.status() == StatusCode::OK) {
                lease.tunnel = Some(hyper::upgrade::on(&mut answer));
                switch(&key, &mut answer);
            }
            let (head, body) = answer.into_parts();
            lease.answer = Some(body);
            Sent::Answer(Response::from_parts(head, ()), Via::Http2(lease))
        }
        Err(sent) => sent,
    }
}

fn waiting_ends(share: &LiveShare, watch: &Watch) -> Option<Outcome> {
    if share.is_aborted() {
        return Some(Outcome::Drained);
    }
    watch.upstream.has_passed().then_some(Outcome::Timeout)
}

fn unsent_or_failed(
    mut error: TrySendError<Request<RequestBody>>,
    request: &mut Request<RequestBody>,
) -> Sent {
    match error.take_message() {
        Some(back) => {
            *request = back;
            Sent::Unsent
        }
        None => Sent::Failed(UpstreamError::Http2(error.into_error())),
    }
}
