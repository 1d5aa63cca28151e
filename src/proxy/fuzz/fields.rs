use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

use crate::proxy::wire::app_head;
use crate::proxy::wire::framing::Reader;
use crate::proxy::wire::head;
use crate::proxy::wire::headers::{Client, strip_hop_by_hop};

/// Header fields, one on each line: no hop-by-hop field is left, nor any claim by an untrusted client
/// about who it is, and what is left makes a single valid head.
pub fn fields(bytes: &[u8]) {
    let lines = bytes.split(|&b| b == b'\n');
    let mut headers: HeaderMap = lines.filter_map(field).collect();
    let named: Vec<HeaderName> = connection_names(&headers).collect();
    strip_hop_by_hop(&mut headers);
    assert_stripped(&headers);
    for name in named {
        let kept = [header::HOST, header::CONTENT_LENGTH, header::TE];
        // The first of the two is looked for alone: `Upgrade` is removed with `Connection`, or put back
        // with it.
        let kept = name == header::UPGRADE || kept.contains(&name);
        assert!(kept || !headers.contains_key(&name), "`{name}` is named");
    }
    let stripped = headers.clone();
    strip_hop_by_hop(&mut headers);
    assert_eq!(stripped, headers, "more goes the second time");

    let host = HeaderValue::from_static("a");
    Client::new([1, 2, 3, 4].into(), false, false).introduce(&mut headers, &host);
    for name in ["x-forwarded-for", "x-real-ip"] {
        let mut values = headers.get_all(name).iter();
        assert!(values.all(|value| value == "1.2.3.4"), "a stranger's word");
    }
    let forwarded: Vec<_> = headers.get_all("forwarded").iter().collect();
    assert_eq!(forwarded, ["for=1.2.3.4;host=\"a\";proto=http"]);

    headers.insert(header::HOST, host);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::UPGRADE);
    let mut request = Request::new(());
    *request.headers_mut() = headers;
    let mut head = Vec::new();
    app_head::write(&request, &mut head);
    let mut reader = Reader::new(head::USUAL);
    let read = reader.follow(&head[..head.len() - 1]);
    assert!(read.is_ok() && !reader.at_start(), "it ends too early");
    let read = reader.follow(&head[head.len() - 1..]);
    assert!(read.is_ok() && reader.at_start(), "it does not end");
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|&b| b == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((name, value))
}

fn connection_names(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter();
    let tokens = values.flat_map(|value| value.as_bytes().split(|&b| b == b','));
    tokens.filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
}

/// Checks that no hop-by-hop field is among them.
pub fn assert_stripped(headers: &HeaderMap) {
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
    ] {
        assert!(!headers.contains_key(name), "`{name}` is left");
    }
    let mut te = headers.get_all(header::TE).iter();
    assert!(te.all(|value| value == "trailers"), "`te` is left");
    let own = [
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-real-ip",
    ];
    for name in headers.keys().filter(|name| name.as_str().contains('_')) {
        let read_as = name.as_str().replace('_', "-");
        assert!(!own.contains(&&read_as[..]), "`{name}` is left");
    }
}
