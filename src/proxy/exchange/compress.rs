//! Which responses are compressed, if their app wants that.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};

use super::download::ResponseBody;
use crate::proxy::downstream::packed::{Coding, Packed};

/// A shorter body gains nothing, in bytes.
const LEAST: u64 = 1 << 10;

/// What a request says of how its response may be compressed.
pub struct Wish {
    coding: Option<Coding>,
    is_head: bool,
}

impl Wish {
    pub fn of(method: &Method, version: Version, headers: &HeaderMap) -> Self {
        let coding = accepted(headers);
        Self {
            coding: coding.filter(|_| version > Version::HTTP_10 && !is_exposed(headers)),
            is_head: *method == Method::HEAD,
        }
    }
}

/// Compresses the response if that is possible and worth it.
pub fn compress(wish: &Wish, answer: &mut Response<ResponseBody>) {
    if !matches!(answer.body(), ResponseBody::Stream(_)) || !fits(answer) {
        return;
    }
    // Also where it is not compressed: another client may get it otherwise.
    let vary = HeaderValue::from_static("accept-encoding");
    answer.headers_mut().append(header::VARY, vary);
    let Some(coding) = wish.coding.filter(|_| !wish.is_head) else {
        return;
    };
    let body = std::mem::replace(answer.body_mut(), ResponseBody::empty());
    let ResponseBody::Stream(stream) = body else {
        *answer.body_mut() = body;
        return;
    };
    match Packed::new(stream, coding) {
        Ok(packed) => {
            *answer.body_mut() = ResponseBody::Packed(Box::new(packed));
            let headers = answer.headers_mut();
            headers.remove(header::CONTENT_LENGTH);
            headers.remove(header::ACCEPT_RANGES);
            let coding = HeaderValue::from_static(coding.name());
            headers.insert(header::CONTENT_ENCODING, coding);
            weaken(headers);
        }
        Err(stream) => *answer.body_mut() = ResponseBody::Stream(stream),
    }
}

/// Whether it is of a kind that is compressed.
fn fits(answer: &Response<ResponseBody>) -> bool {
    use StatusCode as S;
    let (status, headers) = (answer.status(), answer.headers());
    let without = [
        S::NO_CONTENT,
        S::RESET_CONTENT,
        S::PARTIAL_CONTENT,
        S::NOT_MODIFIED,
    ];
    if status.is_informational() || without.contains(&status) {
        return false;
    }
    // Whoever signs or encodes a body does not want it changed.
    let bound = [
        "content-encoding",
        "content-range",
        "content-digest",
        "content-md5",
        "digest",
    ];
    if bound.iter().any(|name| headers.contains_key(*name)) {
        return false;
    }
    let control = headers.get_all(header::CACHE_CONTROL).iter();
    let mut control = control.flat_map(|it| it.as_bytes().split(|&b| b == b','));
    if control.any(|it| it.trim_ascii().eq_ignore_ascii_case(b"no-transform")) {
        return false;
    }
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|it| it.to_str().ok()?.parse().ok());
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|it| it.to_str().ok());
    length.is_none_or(|length: u64| length >= LEAST) && kind.is_some_and(is_compressible)
}

fn is_compressible(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    let (family, name) = kind.split_once('/').unwrap_or_default();
    match family {
        "text" => name != "event-stream",
        "application" => {
            let plain = [
                "javascript",
                "json",
                "xml",
                "wasm",
                "x-javascript",
                "x-ndjson",
                "vnd.ms-fontobject",
                "graphql",
            ];
            plain.contains(&name) || name.ends_with("+json") || name.ends_with("+xml")
        }
        "image" => ["svg+xml", "bmp", "x-icon", "vnd.microsoft.icon"].contains(&name),
        "font" => ["ttf", "otf", "collection"].contains(&name),
        _ => false,
    }
}

/// Whether what a page says could be found out by its compressed length (BREACH): another site can make a
/// browser send requests with the visitor's cookies and words of its own. Browsers say where requests come
/// from; those that do not say it get such pages as they are.
fn is_exposed(headers: &HeaderMap) -> bool {
    let credentials = [header::COOKIE, header::AUTHORIZATION];
    if !credentials.iter().any(|name| headers.contains_key(name)) {
        return false;
    }
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    !matches!(site, Some(b"same-origin" | b"none"))
}

/// The coding that the client likes best; of equal ones the best.
fn accepted(headers: &HeaderMap) -> Option<Coding> {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter();
    let parts = lines.flat_map(|line| line.to_str().unwrap_or_default().split(','));
    let parts: Vec<(&str, u32)> = parts.map(quality).collect();
    let of = |name: &str| {
        let named = parts.iter().find(|(it, _)| it.eq_ignore_ascii_case(name));
        named.map(|(_, quality)| *quality)
    };
    let any = of("*").unwrap_or(0);
    let rated = Coding::ALL.map(|coding| (of(coding.name()).unwrap_or(any), coding));
    let best = rated.iter().map(|(quality, _)| *quality).max()?;
    let found = rated
        .iter()
        .find(|(quality, _)| *quality == best && best > 0);
    found.map(|(_, coding)| *coding)
}

/// A name and its quality in thousandths (RFC 9110, 12.4.2).
fn quality(part: &str) -> (&str, u32) {
    let (name, rest) = part.split_once(';').unwrap_or((part, ""));
    let given = rest
        .trim()
        .strip_prefix("q=")
        .or(rest.trim().strip_prefix("Q="));
    let quality = match given.map(|it| it.trim().parse::<f32>()) {
        None => 1.0,
        Some(quality) => quality.unwrap_or(0.0),
    };
    (name.trim(), (quality.clamp(0.0, 1.0) * 1000.0) as u32)
}

/// It is no longer the same byte for byte.
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(header::ETAG) else {
        return;
    };
    if tag.as_bytes().starts_with(b"W/") {
        return;
    }
    match HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
        Ok(weak) => headers.insert(header::ETAG, weak),
        Err(_) => headers.remove(header::ETAG),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coding_that_the_client_likes_best_is_taken() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(text));
            accepted(&headers).map(Coding::name)
        };
        assert_eq!(of("gzip, deflate, br, zstd"), Some("zstd"));
        assert_eq!(of("gzip, br"), Some("br"));
        assert_eq!(of("gzip;q=1.0, br;q=0.5"), Some("gzip"));
        assert_eq!(of("*"), Some("zstd"));
        assert_eq!(of("*, zstd;q=0"), Some("br"));
        assert_eq!(of("GZIP;q=0.001"), Some("gzip"));
        for none in ["", "identity", "gzip;q=0", "deflate", "*;q=0", "gzip;q=x"] {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!(accepted(&HeaderMap::new()), None);
    }

    #[test]
    fn what_another_site_may_have_asked_for_with_the_visitor_s_cookies_is_left_alone() {
        let of = |fields: &[(&'static str, &'static str)]| {
            let fields = fields.iter();
            let fields = fields.map(|&(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            });
            is_exposed(&fields.collect())
        };
        assert!(!of(&[]));
        assert!(of(&[("cookie", "a=b")]));
        assert!(of(&[
            ("authorization", "Basic x"),
            ("sec-fetch-site", "cross-site")
        ]));
        assert!(of(&[("cookie", "a=b"), ("sec-fetch-site", "same-site")]));
        assert!(!of(&[("cookie", "a=b"), ("sec-fetch-site", "same-origin")]));
        assert!(!of(&[("cookie", "a=b"), ("sec-fetch-site", "none")]));
    }

    #[test]
    fn only_what_gains_by_it_is_compressed() {
        for kind in [
            "text/html; charset=utf-8",
            "Application/JSON",
            "image/svg+xml",
            "application/ld+json",
            "application/wasm",
        ] {
            assert!(is_compressible(kind), "{kind}");
        }
        for kind in [
            "text/event-stream",
            "image/png",
            "application/grpc",
            "application/zip",
            "font/woff2",
            "video/mp4",
            "",
        ] {
            assert!(!is_compressible(kind), "{kind}");
        }
    }
}
