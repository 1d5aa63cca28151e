//! The request as it is sent to the app.

use std::sync::atomic::Ordering::*;

use http::header::Entry;
use http::{HeaderMap, HeaderValue, Request, Uri, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::ext::Protocol;

use super::extended_connect::Upgrade;
use crate::proxy::downstream::handler::Connection;
use crate::proxy::route::table::Policy;
use crate::proxy::upstream::request_body::RequestBody;
use crate::proxy::upstream::upload::Upload;
use crate::proxy::wire::headers::{FORWARDED_PREFIX, strip_hop_by_hop};
use crate::proxy::wire::request_target::below;

/// Removes the hop-by-hop fields, adds the forwarding fields, and limits the body in size and time.
/// The second value is the client's connection, in case the app switches protocols.
pub fn app_request(
    connection: &Connection,
    mut request: Request<Incoming>,
    host: &HeaderValue,
    policy: &Policy,
    path_prefix: &str,
) -> (Request<RequestBody>, Option<Upgrade>) {
    // `Upgrade` must be ignored in HTTP/1.0 (RFC 9110, 7.8).
    let upgrading =
        strip_hop_by_hop(request.headers_mut()) && request.version() != Version::HTTP_10;
    let on_upgrade = upgrading.then(|| Upgrade {
        connect: request.extensions().get::<Protocol>().is_some(),
        on: hyper::upgrade::on(&mut request),
    });
    let (mut head, incoming) = request.into_parts();
    head.headers.insert(header::HOST, host.clone());
    if head.version == Version::HTTP_2 {
        join_cookies(&mut head.headers);
        say_length(&mut head.headers, incoming.size_hint().exact());
    }
    connection.client.lock().introduce(&mut head.headers, host);
    let body = match incoming.is_end_stream() {
        true => RequestBody::Empty,
        false => {
            if incoming.size_hint().exact().is_none() {
                let chunked = HeaderValue::from_static("chunked");
                head.headers.insert(header::TRANSFER_ENCODING, chunked);
            }
            connection.watch.too_large.store(false, Relaxed);
            RequestBody::Stream(Upload {
                incoming,
                watch: connection.watch.clone(),
                left: policy.max_body.unwrap_or(u64::MAX),
                idle_ms: match policy.h2c && is_grpc(&head.headers) {
                    // A stream of messages, whose sender may be silent for a long time.
                    true => 0,
                    false => policy.body_idle_timeout_ms,
                },
                first_byte_ms: policy.first_byte_timeout_ms,
                buffer: None,
            })
        }
    };
    if upgrading {
        let connection = HeaderValue::from_static("upgrade");
        head.headers.insert(header::CONNECTION, connection);
    } else {
        head.headers.remove(header::UPGRADE);
    }
    if policy.strip_prefix
        && let Ok(prefix) = HeaderValue::from_str(path_prefix)
    {
        head.headers.insert(FORWARDED_PREFIX, prefix);
    }
    head.uri = origin_form(head.uri, path_prefix, policy.strip_prefix);
    head.version = Version::HTTP_11;
    head.extensions.clear();
    (Request::from_parts(head, body), on_upgrade)
}

/// Whether the body is a stream of gRPC messages, judging by its content type.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// HTTP/2 may split the Cookie field over several lines (RFC 9113, 8.2.3); HTTP/1.1 allows only one.
fn join_cookies(headers: &mut HeaderMap) {
    let parts: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
    if parts.len() > 1 {
        let parts: Vec<_> = parts.iter().map(|part| part.as_bytes()).collect();
        if let Ok(line) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
            headers.insert(header::COOKIE, line);
        }
    }
}

/// Replaces a Content-Length with the body's known length, or removes it. HTTP/2 frames the body
/// itself, so the client may have sent the field twice or without a number; in HTTP/1.1 it is the
/// framing.
fn say_length(headers: &mut HeaderMap, length: Option<u64>) {
    if let Entry::Occupied(mut said) = headers.entry(header::CONTENT_LENGTH) {
        match length {
            Some(length) => {
                said.insert(length.into());
            }
            None => {
                said.remove();
            }
        }
    }
}

/// The path and query alone, without the route's prefix if that is to be stripped.
fn origin_form(uri: Uri, path_prefix: &str, strip_prefix: bool) -> Uri {
    let prefix = path_prefix.trim_end_matches('/');
    let strip = strip_prefix && !prefix.is_empty();
    if uri.authority().is_none() && !strip {
        return uri;
    }
    let text = uri.path_and_query().map_or("/", |p| p.as_str());
    let text = match strip {
        true => below(text, prefix).unwrap_or(text),
        false => text,
    };
    let text = match text.starts_with('/') || text == "*" {
        true => text.into(),
        false => format!("/{text}"),
    };
    text.parse().unwrap_or(uri)
}
