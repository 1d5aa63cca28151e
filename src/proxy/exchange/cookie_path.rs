//! Cookies of an app that does not know the path it is served under.

use http::{HeaderMap, HeaderValue, header};

/// Moves the paths of all cookies below `prefix`, as those of the app's addresses are.
pub fn scope(headers: &mut HeaderMap, prefix: &str) {
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() || !headers.contains_key(header::SET_COOKIE) {
        return;
    }
    let all: Vec<_> = headers
        .get_all(header::SET_COOKIE)
        .iter()
        .cloned()
        .collect();
    headers.remove(header::SET_COOKIE);
    for cookie in all {
        let moved = moved(cookie.as_bytes(), prefix);
        let moved = moved.and_then(|text| HeaderValue::from_bytes(&text).ok());
        headers.append(header::SET_COOKIE, moved.unwrap_or(cookie));
    }
}

/// `None`: it stays as it is. Without a path it belongs to that of the request, as the browser knows it.
fn moved(cookie: &[u8], prefix: &str) -> Option<Vec<u8>> {
    // Only valid with the path `/`.
    let whole_host = cookie
        .get(..7)
        .is_some_and(|it| it.eq_ignore_ascii_case(b"__Host-"));
    let mut parts: Vec<_> = cookie.split(|&b| b == b';').map(<[u8]>::to_vec).collect();
    let is_path = |part: &&mut Vec<u8>| {
        let name = part.split(|&b| b == b'=').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"path")
    };
    // The last one counts (RFC 6265, 5.3).
    let part = parts.iter_mut().skip(1).filter(is_path).last()?;
    let value = part.split(|&b| b == b'=').nth(1)?.trim_ascii();
    let below = value.strip_prefix(prefix.as_bytes());
    let is_below = below.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
    if whole_host || is_below || !value.starts_with(b"/") {
        return None;
    }
    *part = [b" Path=", prefix.as_bytes(), value].concat();
    Some(parts.join(&b';'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_move_below_the_prefix_and_nothing_else_changes() {
        for (cookie, scoped) in [
            ("a=b; Path=/", "a=b; Path=/api/"),
            ("a=b; path=/x; Secure", "a=b; Path=/api/x; Secure"),
            ("a=b;Path=/apis", "a=b; Path=/api/apis"),
            ("a=b; Path=/api", "a=b; Path=/api"),
            ("a=b; Path=/api/x", "a=b; Path=/api/x"),
            ("a=b", "a=b"),
            ("path=/; HttpOnly", "path=/; HttpOnly"),
            ("__Host-a=b; Secure; Path=/", "__Host-a=b; Secure; Path=/"),
            ("a=b; Path=", "a=b; Path="),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(header::SET_COOKIE, HeaderValue::from_static(cookie));
            headers.append(header::SET_COOKIE, HeaderValue::from_static("z=1"));
            scope(&mut headers, "/api");
            let all: Vec<_> = headers.get_all(header::SET_COOKIE).iter().collect();
            assert_eq!(all, [scoped, "z=1"], "{cookie}");
        }
    }
}
