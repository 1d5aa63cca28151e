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

#[cfg(test)]
mod tests {
    use super::*;

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
