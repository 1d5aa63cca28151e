//! The response to the client: the app's, or a page that says why there is none.

use std::sync::atomic::Ordering::*;

use http::{HeaderValue, Response, StatusCode, Version, header};

use super::attempt::Attempt;
use super::download::{Download, ResponseBody};
use super::extended_connect::{Upgrade, accept, is_websocket};
use super::page::{self, last, last_page};
use super::tunnel;
use crate::log_limit::limited;
use crate::proxy::route::claim::Claim;
use crate::proxy::route::counters::Outcome;
use crate::proxy::route::routes::Routes;
use crate::proxy::route::table::Policy;
use crate::proxy::upstream::connection::UpstreamError;
use crate::proxy::upstream::upload::UploadError;
use crate::proxy::upstream::via::Via;
use crate::proxy::watch::Watch;
use crate::proxy::wire::headers::strip_hop_by_hop;

/// The response to a request body that is larger than allowed.
pub fn too_large(routes: &Routes, policy: &Policy) -> Response<ResponseBody> {
    let why = "The request body is larger than this app allows.";
    last(page::own(
        routes,
        Some(policy),
        StatusCode::PAYLOAD_TOO_LARGE,
        why,
    ))
}

/// Ends a request that failed because of the client.
pub fn refuse(
    watch: &Watch,
    claim: Claim,
    answer: Response<ResponseBody>,
) -> Response<ResponseBody> {
    refuse_as(Outcome::Client, watch, claim, answer)
}

/// The same, counted as `outcome`.
pub fn refuse_as(
    outcome: Outcome,
    watch: &Watch,
    mut claim: Claim,
    answer: Response<ResponseBody>,
) -> Response<ResponseBody> {
    claim.status = answer.status().as_u16();
    claim.end(outcome);
    watch.share.store(0, SeqCst);
    answer
}

impl Attempt<'_> {
    /// Passes the app's response on to the client.
    pub async fn respond(
        mut self,
        answer: Response<()>,
        via: Via,
        upgrade: Option<Upgrade>,
    ) -> Response<ResponseBody> {
        let (mut head, ()) = answer.into_parts();
        self.claim.status = head.status.as_u16();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let Some(upgrade) = upgrade else {
                return self.failed(
                    Outcome::Malformed,
                    StatusCode::BAD_GATEWAY,
                    "The app switched protocols without being asked to.",
                );
            };
            self.watch.tunnel.store(true, SeqCst);
            self.watch.share.store(0, SeqCst);
            let connection = HeaderValue::from_static("upgrade");
            let websocket = is_websocket(&head.headers);
            strip_hop_by_hop(&mut head.headers);
            head.headers.insert(header::CONNECTION, connection);
            if upgrade.connect {
                accept(&mut head.status, &mut head.headers);
            }
            let held = (self.claim.into_tunnel(), self.watch.clone());
            tunnel::open(upgrade.on, via, held, websocket);
            return Response::from_parts(head, ResponseBody::empty());
        }
        strip_hop_by_hop(&mut head.headers);
        head.headers.remove(header::UPGRADE);
        let connect = upgrade.as_ref().is_some_and(|upgrade| upgrade.connect);
        if connect && head.status.is_success() {
            // The client would take a success to mean that the WebSocket has begun.
            return self.failed(
                Outcome::Malformed,
                StatusCode::BAD_GATEWAY,
                "The app did not switch protocols.",
            );
        }
        if upgrade.is_some() && !connect {
            // What followed on this connection was not checked: see `ClientIo`.
            let close = HeaderValue::from_static("close");
            head.headers.insert(header::CONNECTION, close);
        }
        // The version of the app's connection does not apply to the client's.
        head.version = Version::HTTP_11;
        let kind = head.headers.get(header::CONTENT_TYPE);
        let starts = |text: &str| {
            kind.is_some_and(|k| {
                let k = k.as_bytes();
                k.len() >= text.len() && k[..text.len()].eq_ignore_ascii_case(text.as_bytes())
            })
        };
        let events = starts("text/event-stream");
        let idle_ms = match events || starts("application/grpc") {
            true => 0,
            false => self.claim.share().policy.body_idle_timeout_ms,
        };
        let watch = self.watch.clone();
        let events = events && self.resumes;
        let download = Download::new(via, self.claim, watch, idle_ms, events);
        Response::from_parts(head, ResponseBody::Stream(Box::new(download)))
    }

    /// The connection to the app failed during the request.
    pub fn broken(self, error: UpstreamError) -> Response<ResponseBody> {
        tracing::debug!(
            app = self.claim.share().app,
            "no response from the app: {error}"
        );
        if self.watch.too_large.swap(false, Relaxed) {
            let answer = too_large(self.routes, &self.claim.share().policy);
            return refuse(self.watch, self.claim, answer);
        }
        if self.watch.client.has_passed() {
            return self.stalled();
        }
        if let Some(UploadError::Client(_)) = error.of_request() {
            let answer = last_page(StatusCode::BAD_REQUEST, "The request body ended early.");
            return refuse(self.watch, self.claim, answer);
        }
        let (outcome, why) = match error {
            UpstreamError::Malformed(why) => {
                limited!(
                    warn,
                    "an app's response is not valid HTTP",
                    app = self.claim.share().app,
                    "an app's response is not valid HTTP: {why}"
                );
                (Outcome::Malformed, "The app's response is not valid HTTP.")
            }
            UpstreamError::LongHead(size) => {
                limited!(
                    warn,
                    "the header of an app's response is too long",
                    app = self.claim.share().app,
                    size,
                    "the header of an app's response is too long: at least {} KiB; `proxy.header_limit` \
                     raises the limit",
                    size >> 10
                );
                let why = "The header of the app's response is too long.";
                (Outcome::LongHead, why)
            }
            _ => (
                Outcome::Closed,
                "The app closed the connection before it responded.",
            ),
        };
        self.failed(outcome, StatusCode::BAD_GATEWAY, why)
    }

    /// The client stopped sending the request's body.
    pub fn stalled(self) -> Response<ResponseBody> {
        self.watch.client.clear();
        let answer = last_page(
            StatusCode::REQUEST_TIMEOUT,
            "Timed out while reading the request body.",
        );
        refuse(self.watch, self.claim, answer)
    }

    /// The proxy stopped waiting for the response: a timeout or the drain's deadline has passed.
    pub fn ended(self, outcome: Outcome) -> Response<ResponseBody> {
        let (status, why) = match outcome {
            Outcome::Timeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "The app did not respond in time.",
            ),
            Outcome::Drained => (
                StatusCode::GATEWAY_TIMEOUT,
                "The app was replaced, and this request did not finish in time.",
            ),
            _ => (
                StatusCode::BAD_GATEWAY,
                "The app closed the connection before it responded.",
            ),
        };
        self.failed(outcome, status, why)
    }

    /// A page of the proxy's own, counted as `outcome`.
    pub fn failed(
        mut self,
        outcome: Outcome,
        status: StatusCode,
        why: &str,
    ) -> Response<ResponseBody> {
        self.claim.status = status.as_u16();
        self.claim.end(outcome);
        self.watch.share.store(0, SeqCst);
        let policy = &self.claim.share().policy;
        page::own(self.routes, Some(policy), status, why)
    }
}
