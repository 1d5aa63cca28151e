//! The head of a request, as far as it matters here.

use std::ffi::OsString;
use std::io::{self, BufRead, Read};
use std::os::unix::ffi::OsStringExt;

/// The largest head, in bytes.
const LONGEST: u64 = 32 << 10;

#[derive(Debug, Default)]
pub struct Request {
    pub is_head: bool,
    /// Still encoded, without the query; begins with `/`.
    pub path: String,
    pub query: Option<String>,
    pub keep_alive: bool,
    pub accept: String,
    pub accept_encoding: String,
    pub if_match: Option<String>,
    pub if_unmodified_since: Option<String>,
    pub if_none_match: Option<String>,
    pub if_modified_since: Option<String>,
    pub range: Option<String>,
    pub if_range: Option<String>,
}

/// `None` at the end of the connection; the status of the refusal if it is no request that can be
/// answered, after which the connection cannot be used any more.
pub fn read(input: &mut impl BufRead) -> io::Result<Option<Result<Request, &'static str>>> {
    if input.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut head = input.take(LONGEST);
    let Some(first) = line(&mut head)? else {
        return Ok(Some(Err("431 Request Header Fields Too Large")));
    };
    let mut words = first.split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, words.next())
    else {
        return Ok(Some(Err("400 Bad Request")));
    };
    let mut request = Request {
        is_head: method == "HEAD",
        keep_alive: version == "HTTP/1.1",
        ..Request::default()
    };
    loop {
        match line(&mut head)? {
            None => return Ok(Some(Err("431 Request Header Fields Too Large"))),
            Some(field) if field.is_empty() => break,
            Some(field) => {
                let Some((name, value)) = field.split_once(':') else {
                    return Ok(Some(Err("400 Bad Request")));
                };
                request.take(&name.to_ascii_lowercase(), value.trim());
            }
        }
    }
    if !matches!(method, "GET" | "HEAD") {
        return Ok(Some(Err("405 Method Not Allowed\r\nallow: GET, HEAD")));
    }
    let target = match target.split_once("://") {
        // With the host in it, as to a proxy.
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    if !path.starts_with('/') {
        return Ok(Some(Err("400 Bad Request")));
    }
    (request.path, request.query) = (path.to_owned(), query);
    Ok(Some(Ok(request)))
}

impl Request {
    fn take(&mut self, name: &str, value: &str) {
        let value = value.to_owned();
        match name {
            "connection" if value.eq_ignore_ascii_case("close") => self.keep_alive = false,
            // Nobody reads a body, so that the next request is not found behind it.
            "transfer-encoding" => self.keep_alive = false,
            "content-length" if value != "0" => self.keep_alive = false,
            "accept" => self.accept = value,
            "accept-encoding" => self.accept_encoding = value,
            "if-match" => self.if_match = Some(value),
            "if-unmodified-since" => self.if_unmodified_since = Some(value),
            "if-none-match" => self.if_none_match = Some(value),
            "if-modified-since" => self.if_modified_since = Some(value),
            "range" => self.range = Some(value),
            "if-range" => self.if_range = Some(value),
            _ => {}
        }
    }

    /// How welcome a content in this coding is: 0 not at all, 1 most (RFC 9110, 12.4.2).
    pub fn weight(&self, coding: &str) -> f32 {
        let mut codings = self.accept_encoding.split(',');
        let weight = codings.find_map(|it| {
            let mut parts = it.split(';').map(str::trim);
            let named = parts.next()?.eq_ignore_ascii_case(coding);
            let weight = parts.find_map(|it| it.strip_prefix("q="));
            named.then(|| weight.map_or(1.0, |it| it.parse().unwrap_or(0.0)))
        });
        weight.unwrap_or(0.0)
    }

    /// The path's parts, decoded; an empty last one if it ends with `/`. `None` for a path that no file
    /// can have, or may be asked for by.
    pub fn parts(&self) -> Option<Vec<OsString>> {
        let mut parts = Vec::new();
        let encoded: Vec<_> = self.path[1..].split('/').collect();
        for (at, part) in encoded.iter().enumerate() {
            let part = decoded(part)?;
            let is_last = at + 1 == encoded.len();
            let hidden = part.starts_with(b".") && !(at == 0 && part == b".well-known");
            let special = part.iter().any(|byte| matches!(byte, b'/' | b'\0'));
            if hidden || special || (part.is_empty() && !is_last) {
                return None;
            }
            parts.push(OsString::from_vec(part));
        }
        Some(parts)
    }
}

/// A file's name is any bytes.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    Some(out)
}

/// `None` if it has no end.
fn line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    input.read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
