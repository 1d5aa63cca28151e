//! Compressed pages. Their forms carry a secret, but no other site's request carries the cookie with
//! which it could guess at it by their lengths.

use std::io::Write;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;

/// Below this many bytes it is not worth it.
const WORTH: usize = 1024;
/// More than any page has.
const MOST: usize = 16 << 20;

pub fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING);
    let accepted = accepted
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    accepted.split(',').any(|one| one.trim() == "gzip")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    // A vector takes everything.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// Compresses what is HTML.
pub async fn compress(request: Request, next: Next) -> Response {
    let wanted = is_wanted(request.headers());
    let response = next.run(request).await;
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_page = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if !wanted || !is_page {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, MOST).await else {
        return Response::from_parts(head, Body::empty());
    };
    if bytes.len() < WORTH {
        return Response::from_parts(head, Body::from(bytes));
    }
    let encoding = HeaderValue::from_static("gzip");
    head.headers.insert(header::CONTENT_ENCODING, encoding);
    head.headers.remove(header::CONTENT_LENGTH);
    let vary = HeaderValue::from_static("accept-encoding");
    head.headers.insert(header::VARY, vary);
    Response::from_parts(head, Body::from(gzip(&bytes)))
}
