//! Heads on the app's side of an HTTP/1 connection: writes those of requests and reads those of
//! responses.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use hyper::ext::ReasonPhrase;
use memchr::memchr_iter;

use super::app_body::Decoder;

/// How many header fields are read without allocating memory for them. Few responses have more, and only
/// the length of the whole head is limited.
const USUAL: usize = 100;

/// Fields that are not allowed as trailers (RFC 9110, 6.5.1): they frame or route a message or
/// authenticate its sender, and could contradict what has already been acted on.
const BEFORE_THE_BODY: [HeaderName; 13] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::HOST,
    header::MAX_FORWARDS,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
];

/// A response's head, and what it says about the body.
pub struct AnswerHead {
    pub response: Response<()>,
    pub body: Decoder,
    /// Whether the connection may carry another request.
    pub keeps: bool,
}

/// Adds the head to `to`, with its empty line.
pub fn write<T>(request: &Request<T>, to: &mut Vec<u8>) {
    to.extend_from_slice(request.method().as_str().as_bytes());
    to.push(b' ');
    let target = request.uri().path_and_query();
    to.extend_from_slice(target.map_or("/", |t| t.as_str()).as_bytes());
    to.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in request.headers() {
        field(name, value, to);
    }
    to.extend_from_slice(b"\r\n");
}

/// Adds a part of a chunked body. An empty part would end the body.
pub fn write_chunk(data: &[u8], to: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    let size = format!("{:x}\r\n", data.len());
    to.extend_from_slice(size.as_bytes());
    to.extend_from_slice(data);
    to.extend_from_slice(b"\r\n");
}

/// Ends a chunked body with those trailers that were announced and are allowed as trailers.
pub fn write_trailers(trailers: &HeaderMap, announced: &[HeaderValue], to: &mut Vec<u8>) {
    to.extend_from_slice(b"0\r\n");
    let named = |name: &HeaderName| {
        let tokens = announced
            .iter()
            .flat_map(|v| v.as_bytes().split(|&b| b == b','));
        let mut tokens = tokens.map(<[u8]>::trim_ascii);
        tokens.any(|token| token.eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    let fields = trailers
        .iter()
        .filter(|(name, _)| named(name) && !BEFORE_THE_BODY.contains(name));
    for (name, value) in fields {
        field(name, value, to);
    }
    to.extend_from_slice(b"\r\n");
}

fn field(name: &HeaderName, value: &HeaderValue, to: &mut Vec<u8>) {
    to.extend_from_slice(name.as_str().as_bytes());
    to.extend_from_slice(b": ");
    to.extend_from_slice(value.as_bytes());
    to.extend_from_slice(b"\r\n");
}

/// Reads a complete head of a response to a request with this method. An error says what is wrong.
pub fn read(head: Bytes, method: &Method) -> Result<AnswerHead, &'static str> {
    let mut fields = [const { MaybeUninit::uninit() }; USUAL];
    let mut many = Vec::new();
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let mut complete = config.parse_response_with_uninit_headers(&mut parsed, &head, &mut fields);
    if complete == Err(httparse::Error::TooManyHeaders) {
        many.resize_with(memchr_iter(b'\n', &head).count(), MaybeUninit::uninit);
        parsed = httparse::Response::new(&mut []);
        complete = config.parse_response_with_uninit_headers(&mut parsed, &head, &mut many);
    }
    let complete = complete.map_err(|error| match error {
        httparse::Error::HeaderName => "invalid header name",
        httparse::Error::HeaderValue => "invalid header value",
        _ => "invalid status line",
    })?;
    let (httparse::Status::Complete(_), Some(code)) = (complete, parsed.code) else {
        return Err("incomplete head");
    };
    let mut response = Response::new(());
    let status = StatusCode::from_u16(code).map_err(|_| "invalid status code")?;
    *response.status_mut() = status;
    let old = parsed.version == Some(0);
    if old {
        *response.version_mut() = Version::HTTP_10;
    }
    let reason = parsed.reason.unwrap_or("");
    if !reason.is_empty() && status.canonical_reason() != Some(reason) {
        let reason = ReasonPhrase::try_from(head.slice_ref(reason.as_bytes()));
        if let Ok(reason) = reason {
            response.extensions_mut().insert(reason);
        }
    }
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let name = name.map_err(|_| "invalid header name")?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value));
        let value = value.map_err(|_| "invalid header value")?;
        let added = headers.try_append(name, value);
        added.map_err(|_| "too many different header fields")?;
    }
    let keeps = keeps(&headers, old);
    let body = decoder(&mut headers, status, method, old)?;
    *response.headers_mut() = headers;
    Ok(AnswerHead {
        response,
        keeps: keeps && body != Decoder::UntilClose,
        body,
    })
}

fn keeps(headers: &HeaderMap, old: bool) -> bool {
    let mut keeps = !old;
    for value in headers.get_all(header::CONNECTION) {
        for token in value.as_bytes().split(|&b| b == b',') {
            let token = token.trim_ascii();
            if token.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keeps |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keeps
}

/// The framing according to RFC 9112, 6.3. A length that must be ignored is removed.
fn decoder(
    headers: &mut HeaderMap,
    status: StatusCode,
    method: &Method,
    old: bool,
) -> Result<Decoder, &'static str> {
    let chunked = is_chunked(headers)?;
    if chunked {
        if old {
            return Err("Transfer-Encoding in an HTTP/1.0 response");
        }
        headers.remove(header::CONTENT_LENGTH);
    }
    let length = length_field(headers)?;
    if *method == Method::HEAD
        || status.is_informational()
        || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status)
    {
        return Ok(Decoder::Length(0));
    }
    Ok(match (chunked, length) {
        (true, _) => Decoder::chunks(),
        (false, Some(length)) => Decoder::Length(length),
        (false, None) => Decoder::UntilClose,
    })
}

/// Other codings were not requested (no TE was sent), and the client would not learn of them, because
/// transfer codings are hop-by-hop.
fn is_chunked(headers: &HeaderMap) -> Result<bool, &'static str> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err("Transfer-Encoding is not `chunked`"),
    }
}

fn length_field(headers: &mut HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.any(|other| other != first) {
        return Err("conflicting Content-Length values");
    }
    let text = first.as_bytes();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err("invalid Content-Length");
    }
    let length = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
    let first = first.clone();
    headers.insert(header::CONTENT_LENGTH, first);
    length.map(Some).ok_or("invalid Content-Length")
}

#[cfg(test)]
mod tests {
    use super::super::head;
    use super::*;

    fn of(text: &str, method: Method) -> Result<(u16, Decoder, bool), &'static str> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        assert_eq!(head::length(&bytes), Some(bytes.len()), "{text:?}");
        let read = read(bytes, &method)?;
        Ok((read.response.status().as_u16(), read.body, read.keeps))
    }

    #[test]
    fn what_follows_an_answers_head() {
        let get = |fields: &str| of(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), Method::GET);
        let ok = |body, keeps| Ok((200, body, keeps));
        assert_eq!(get("Content-Length: 5\r\n"), ok(Decoder::Length(5), true));
        let closes = "Content-Length: 5\r\nConnection: x, Close\r\n";
        assert_eq!(get(closes), ok(Decoder::Length(5), false));
        let same = "Content-Length: 5\r\nContent-Length: 5\r\n";
        assert_eq!(get(same), ok(Decoder::Length(5), true));
        assert_eq!(get(""), ok(Decoder::UntilClose, false));
        let chunked = "Content-Length: 5\r\nTransfer-Encoding: Chunked \r\n";
        assert_eq!(get(chunked), ok(Decoder::chunks(), true));
        for bad in [
            "gzip",
            "gzip, chunked",
            "chunked, gzip",
            "chunked, chunked",
            "identity",
            "",
            "chunked\r\nTransfer-Encoding: chunked",
        ] {
            let bad = get(&format!("Transfer-Encoding: {bad}\r\n"));
            assert!(bad.is_err(), "{bad:?}");
        }
        for bad in ["-1", "+1", "1, 1", "", "18446744073709551616"] {
            let bad = get(&format!("Content-Length: {bad}\r\n"));
            assert!(bad.is_err(), "{bad:?}");
        }
        assert!(get("Content-Length: 5\r\nContent-Length: 6\r\n").is_err());
        assert!(get("A: b\r\n c\r\n").is_err(), "a folded line");
        assert!(get("A : b\r\n").is_err(), "a blank before the colon");
    }

    #[test]
    fn there_may_be_many_fields() {
        let cookies = "Set-Cookie: a=b\r\n".repeat(150);
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{cookies}\r\n");
        let read = read(Bytes::from(text), &Method::GET);
        let headers = read.unwrap_or_else(|why| panic!("{why}")).response;
        let cookies = headers.headers().get_all(header::SET_COOKIE).iter();
        assert_eq!(cookies.count(), 150);
        // As many as fit into the longest head.
        let names: String = (0..head::MAX / 9).map(|n| format!("{n:05}:\r\n")).collect();
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{names}\r\n");
        assert_eq!(of(&text, Method::GET), Ok((200, Decoder::Length(0), true)));
    }

    #[test]
    fn what_has_no_body_and_what_is_old() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(of(text, Method::HEAD), Ok((200, Decoder::Length(0), true)));
        for code in [204, 304] {
            let text = format!("HTTP/1.1 {code} \r\nContent-Length: 5\r\n\r\n");
            assert_eq!(of(&text, Method::GET), Ok((code, Decoder::Length(0), true)));
        }
        let text = "HTTP/1.0 200 OK\nContent-Length: 5\n\n";
        assert_eq!(of(text, Method::GET), Ok((200, Decoder::Length(5), false)));
        let text = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(of(text, Method::GET).is_err());
        assert!(of("nonsense\r\n\r\n", Method::GET).is_err());
    }

    #[test]
    fn a_length_beside_chunks_is_taken_out_and_a_reason_is_kept() {
        let text = "HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        let read = read(Bytes::from_static(text.as_bytes()), &Method::GET);
        let response = read.unwrap_or_else(|why| panic!("{why}")).response;
        assert!(!response.headers().contains_key(header::CONTENT_LENGTH));
        let reason = response.extensions().get::<ReasonPhrase>();
        assert_eq!(reason.map(ReasonPhrase::as_bytes), Some(&b"Fine"[..]));
    }
}
