//! A request as a span, and what the app learns of that.

use std::sync::Arc;

use http::{HeaderValue, Request};
use hyper::body::Incoming;

use super::redirect::came_secure;
use crate::proxy::downstream::handler::Connection;
use crate::proxy::route::claim::Claim;
use crate::proxy::spans::{Open, Span, Spans, now_us, random, shortened};
use crate::proxy::wire::trace_parent::{self, TraceParent};

/// Begins a request's span: in the trace that the request belongs to, else in a new one.
pub fn begin(
    spans: &Arc<Spans>,
    connection: &Connection,
    claim: &Claim,
    host: &HeaderValue,
    request: &mut Request<Incoming>,
) -> Box<Open> {
    let before = trace_parent::of(request.headers());
    let own = TraceParent {
        trace: before.map_or_else(new_trace, |before| before.trace),
        span: new_span(),
    };
    let share = claim.share();
    let secure = came_secure(connection, request);
    let span = Span {
        trace: hex::encode(own.trace),
        id: hex::encode(own.span),
        parent: before.map(|before| hex::encode(before.span)),
        app: share.app.clone(),
        release: share.release.clone(),
        scheme: if secure { "https" } else { "http" }.into(),
        host: shortened(host.to_str().unwrap_or("")),
        method: shortened(request.method().as_str()),
        path: shortened(request.uri().path()),
        status: 0,
        outcome: String::new(),
        began_us: now_us(),
        took_us: 0,
    };
    trace_parent::pass(request.headers_mut(), before.as_ref(), &own);
    Box::new(Open {
        span,
        into: spans.clone(),
    })
}

fn new_trace() -> [u8; 16] {
    let (high, low) = (u128::from(random()), u128::from(new_id()));
    ((high << 64) | low).to_be_bytes()
}

fn new_span() -> [u8; 8] {
    new_id().to_be_bytes()
}

/// Not zero, which is no id.
fn new_id() -> u64 {
    random().max(1)
}
