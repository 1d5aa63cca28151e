//! The host and the target of a request, which must be unambiguous.

use http::uri::Scheme;
use http::{HeaderValue, Method, Request, Version, header};
use memchr::memchr;

/// The request's host: the target's authority, else the Host header. `None`: it is missing or
/// invalid.
pub fn host<B>(request: &Request<B>) -> Option<HeaderValue> {
    let host = match (
        request.uri().authority(),
        request.headers().get(header::HOST),
    ) {
        (Some(authority), _) => HeaderValue::from_str(authority.as_str()).ok()?,
        (None, Some(host)) => host.clone(),
        (None, None) if request.version() == Version::HTTP_10 => HeaderValue::from_static(""),
        (None, None) => return None,
    };
    is_host(host.as_bytes()).then_some(host)
}

/// `name`, `name:port`, or the same with an IPv6 address in brackets (RFC 3986, 3.2.2). Userinfo,
/// lists and delimiters that another server might parse differently are invalid.
fn is_host(text: &[u8]) -> bool {
    let (name, port) = match text {
        [b'[', inner @ ..] => match memchr(b']', inner) {
            Some(end) => (&inner[..end], &inner[end + 1..]),
            None => return false,
        },
        _ => text.split_at(memchr(b':', text).unwrap_or(text.len())),
    };
    let bracketed = text.starts_with(b"[");
    let part = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b) || bracketed && *b == b':';
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_port && name.iter().all(part)
}

/// Whether the target is valid for a server: `*` in OPTIONS only (RFC 9112, 3.2.4), no authority form,
/// which belongs to CONNECT (3.2.3), and no scheme but `http` and `https`.
pub fn is_valid<B>(request: &Request<B>) -> bool {
    let uri = request.uri();
    let scheme = uri
        .scheme()
        .is_none_or(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
    let name_alone = uri.scheme().is_none() && uri.authority().is_some();
    scheme && !name_alone && (uri.path() != "*" || request.method() == Method::OPTIONS)
}

/// What of a path follows `prefix`, comparing whole segments; `None` if it does not lie below it. Escapes
/// mean what they stand for, but an escaped slash separates nothing. Segments count as they stand: `/a//b`
/// and `/a/../b` lie below `/a`, and `/A` does not.
pub fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let prefix = prefix.trim_end_matches('/');
    let rest = match path.strip_prefix(prefix) {
        Some(rest) => rest,
        None => unescaped_prefix(path, prefix)?,
    };
    (rest.is_empty() || rest.starts_with(['/', '?']) || prefix.is_empty()).then_some(rest)
}

/// What follows the bytes of `path` that stand for those of `prefix`.
fn unescaped_prefix<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let bytes = path.as_bytes();
    let mut at = 0;
    for &wanted in prefix.as_bytes() {
        let (byte, length) = match bytes.get(at)? {
            b'%' => (escaped(bytes.get(at + 1..at + 3)?)?, 3),
            &byte => (byte, 1),
        };
        if byte != wanted || byte == b'/' && length == 3 {
            return None;
        }
        at += length;
    }
    // Only whole ASCII characters were passed.
    path.get(at..)
}

fn escaped(digits: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    let value = digit(digits[0])? * 16 + digit(digits[1])?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_below_whole_segments_however_they_are_escaped() {
        for (path, rest) in [
            ("/api", ""),
            ("/api/x", "/x"),
            ("/api?x", "?x"),
            ("/%61pi/x", "/x"),
            ("/%61%70%69", ""),
            ("/api/../b", "/../b"),
            ("/api//x", "//x"),
            ("/api/%2e%2e/b", "/%2e%2e/b"),
        ] {
            assert_eq!(below(path, "/api"), Some(rest), "{path}");
        }
        for other in [
            "/",
            "/apis",
            "/API",
            "//api",
            "/x/../api",
            "/api%2Fx",
            "%2Fapi",
            "/%6",
            "/%zzpi",
            "/ap\u{131}",
        ] {
            assert_eq!(below(other, "/api"), None, "{other}");
        }
        assert_eq!(below("/x", "/"), Some("/x"));
        assert_eq!(below("*", "/"), Some("*"));
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_maybe_a_port() {
        for good in [
            "",
            "a",
            "a.b-c_d~e",
            "a:80",
            "a:",
            "1.2.3.4:8080",
            "[::1]",
            "[::1]:443",
        ] {
            assert!(is_host(good.as_bytes()), "{good:?}");
        }
        for bad in [
            "a:x", "a:80:80", "::1", "a:123456", "[::1", "[::1]x", "[::1]:x", "u@a", "a,b", "a/b",
            "a b", "a]", "\u{e4}",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad:?}");
        }
    }
}
