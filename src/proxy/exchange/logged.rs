//! What the access log says of a request.

use std::collections::BTreeMap;

use http::{HeaderMap, Request};
use hyper::body::Incoming;

use super::front::{Proxies, client_address};
use crate::proxy::access_log::Entry;
use crate::proxy::downstream::handler::Connection;
use crate::proxy::route::claim::Claim;
use crate::proxy::wire::request_id;

/// How much of a header field is logged, in bytes.
const LOGGED: usize = 1 << 10;

/// A request's line, to be completed when it has ended. `None`: it gets none.
pub fn entry(
    proxies: &Proxies,
    connection: &Connection,
    claim: &Claim,
    host: &str,
    request: &Request<Incoming>,
) -> Option<Box<Entry>> {
    let share = claim.share();
    let path = request.uri().path();
    let logged = share.policy.front.as_ref();
    let logged = logged.and_then(|front| front.access_log.as_ref());
    if logged.is_some_and(|logged| logged.except.iter().any(|it| it.matches(path))) {
        return None;
    }
    let headers = logged.map(|logged| chosen(&logged.headers, request.headers()));
    let now = time::OffsetDateTime::now_utc();
    let format = &time::format_description::well_known::Rfc3339;
    Some(Box::new(Entry {
        time: now.format(format).unwrap_or_default(),
        request_id: request_id::of(request.headers()),
        app: share.app.clone(),
        release: share.release.clone(),
        client: client_address(proxies, connection, request),
        host: host.into(),
        method: request.method().to_string(),
        path: path.into(),
        status: 0,
        outcome: "",
        took_us: 0,
        headers: headers.unwrap_or_default(),
    }))
}

/// The values of the header fields with these names, as far as they fit into a line.
fn chosen(names: &[String], headers: &HeaderMap) -> BTreeMap<String, String> {
    let value = |name: &String| {
        let value = headers.get(name)?.as_bytes();
        let value = &value[..value.len().min(LOGGED)];
        Some((name.clone(), String::from_utf8_lossy(value).into_owned()))
    };
    names.iter().filter_map(value).collect()
}
