//! `ETag` and `If-None-Match`: whoever looks again and again gets the body only if it has changed.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};

/// A longer body, and one that is written as it is read, gets no tag. In bytes: lists are far shorter.
const LONGEST: u64 = 8 << 20;

/// Tags the JSON that GET is answered with.
pub async fn tagged(request: Request, next: Next) -> Response {
    let wanted = (request.method() == Method::GET)
        .then(|| request.headers().get(header::IF_NONE_MATCH).cloned());
    let answer = next.run(request).await;
    let Some(known) = wanted.filter(|_| is_json(&answer) && is_short(&answer)) else {
        return answer;
    };
    let (mut head, body) = answer.into_parts();
    let Ok(body) = body.collect().await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let body = body.to_bytes();
    let tag = tag(&body);
    let is_known = known.is_some_and(|known| names(&known, &tag));
    add(&mut head.headers, &tag);
    if is_known {
        head.status = StatusCode::NOT_MODIFIED;
        head.headers.remove(header::CONTENT_TYPE);
        head.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(head, Body::empty());
    }
    Response::from_parts(head, Body::from(body))
}

fn is_json(answer: &Response) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let is_json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    is_json && answer.status() == StatusCode::OK
}

fn is_short(answer: &Response) -> bool {
    let length = answer.body().size_hint().exact();
    length.is_some_and(|length| length <= LONGEST)
}

fn tag(body: &Bytes) -> String {
    format!("\"{}\"", hex::encode(&Sha256::digest(body)[..16]))
}

fn add(headers: &mut HeaderMap, tag: &str) {
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    let ask = HeaderValue::from_static("private, no-cache");
    headers.entry(header::CACHE_CONTROL).or_insert(ask);
}

/// Whether `If-None-Match` names the tag.
fn names(known: &HeaderValue, tag: &str) -> bool {
    let known = known.to_str().unwrap_or_default();
    let mut all = known.split(',').map(str::trim);
    all.any(|it| it == "*" || it.strip_prefix("W/").unwrap_or(it) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_among_others() {
        let tag = tag(&Bytes::from_static(b"{}"));
        for (known, is) in [
            (tag.clone(), true),
            (format!("\"x\", W/{tag}"), true),
            ("*".into(), true),
            ("\"x\"".into(), false),
            (String::new(), false),
        ] {
            let known = HeaderValue::from_str(&known).unwrap();
            assert_eq!(names(&known, &tag), is, "{known:?}");
        }
    }

    /// It was answered with 500 once.
    #[tokio::test]
    async fn what_is_too_long_for_a_tag_is_sent_without_one() {
        use tower::ServiceExt;
        let of = |length: u64| async move {
            let long = move || async move { axum::Json("x".repeat(length as usize)) };
            let router = axum::Router::new().route("/", axum::routing::get(long));
            let router = router.layer(axum::middleware::from_fn(tagged));
            let answer = router.oneshot(Request::new(Body::empty())).await.unwrap();
            let is_tagged = answer.headers().contains_key(header::ETAG);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (is_tagged, body.len() as u64)
        };
        assert_eq!(of(10).await, (true, 12));
        assert_eq!(of(LONGEST).await, (false, LONGEST + 2));
    }
}
