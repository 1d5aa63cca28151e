//! The header fields of a forwarded message: removes the hop-by-hop ones (RFC 9110, 7.6.1), and adds
//! the client's address and scheme.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY: HeaderName = HeaderName::from_static("proxy");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// The prefix of fields that only a proxy can set.
const FORWARDED_ANY: &str = "x-forwarded-";
/// Tells the app which path prefix was stripped from the request's path.
pub const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The client of a connection, in the form in which apps are told about it.
#[derive(Clone)]
pub struct Client {
    pub address: IpAddr,
    pub secure: bool,
    /// Whether the forwarding fields that it sends are kept.
    pub trusted: bool,
    /// Whether it is a container that asks for another app by its name.
    pub linked: bool,
    address_text: HeaderValue,
    /// What the last request's host led to, kept because most requests of a connection name the same.
    last: Option<Introduction>,
}

#[derive(Clone)]
struct Introduction {
    host: HeaderValue,
    /// The `Forwarded` line.
    forwarded: HeaderValue,
    port: HeaderValue,
}

impl Client {
    pub fn new(address: IpAddr, secure: bool, trusted: bool) -> Self {
        let address = address.to_canonical();
        let text = address.to_string();
        Self {
            address,
            secure,
            trusted,
            linked: false,
            address_text: HeaderValue::try_from(text).expect("an address is visible ASCII"),
            last: None,
        }
    }

    fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Sets X-Forwarded-For, -Proto, -Host, -Port and Forwarded. Values that the client sent for these, and
    /// any other X-Forwarded-… field, are kept only if the client is trusted.
    pub fn introduce(&mut self, headers: &mut HeaderMap, host: &HeaderValue) {
        let (forwarded, port) = self.introduction(host);
        if self.trusted {
            append(headers, FORWARDED_FOR, &self.address_text);
            append(headers, FORWARDED, &forwarded);
            // The port belongs to the scheme: who names one and not the other is not added to.
            if !headers.contains_key(FORWARDED_PROTO) {
                let proto = HeaderValue::from_static(self.scheme());
                headers.insert(FORWARDED_PROTO, proto);
                headers.entry(FORWARDED_PORT).or_insert(port);
            }
            headers.entry(FORWARDED_HOST).or_insert(host.clone());
            return;
        }
        let of_a_proxy = |name: &&HeaderName| name.as_str().starts_with(FORWARDED_ANY);
        let theirs: Vec<_> = headers.keys().filter(of_a_proxy).cloned().collect();
        for name in theirs {
            headers.remove(name);
        }
        headers.insert(FORWARDED_FOR, self.address_text.clone());
        headers.insert(FORWARDED, forwarded);
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(self.scheme()));
        headers.insert(FORWARDED_HOST, host.clone());
        headers.insert(FORWARDED_PORT, port);
        if headers.contains_key(REAL_IP) {
            headers.insert(REAL_IP, self.address_text.clone());
        }
    }

    /// The `Forwarded` line, and the port that the client named or that its scheme implies.
    fn introduction(&mut self, host: &HeaderValue) -> (HeaderValue, HeaderValue) {
        if let Some(last) = &self.last
            && last.host == host
        {
            return (last.forwarded.clone(), last.port.clone());
        }
        let node = match self.address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("\"[{v6}]\""),
        };
        let host_text: String = String::from_utf8_lossy(host.as_bytes())
            .chars()
            .filter(|&c| c != '"' && c != '\\')
            .collect();
        let line = format!("for={node};host=\"{host_text}\";proto={}", self.scheme());
        let line = HeaderValue::try_from(line).unwrap_or(HeaderValue::from_static("for=unknown"));
        // A copy: the received value is a part of its read buffer, all of which would be kept for as
        // long as the connection.
        let known = HeaderValue::from_bytes(host.as_bytes());
        let named = host_text.rsplit_once(':').map(|(_, port)| port);
        let named = named.filter(|port| !port.is_empty() && !port.contains(']'));
        let port = match (named, self.secure) {
            (Some(port), _) => HeaderValue::from_str(port).ok(),
            (None, true) => Some(HeaderValue::from_static("443")),
            (None, false) => Some(HeaderValue::from_static("80")),
        };
        let port = port.unwrap_or(HeaderValue::from_static(""));
        self.last = known.ok().map(|host| Introduction {
            host,
            forwarded: line.clone(),
            port: port.clone(),
        });
        (line, port)
    }
}

/// Appends a value to a list field, in one line.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    let mut line: Vec<u8> = Vec::new();
    for before in headers.get_all(&name) {
        line.extend_from_slice(before.as_bytes());
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(value.as_bytes());
    if let Ok(line) = HeaderValue::from_bytes(&line) {
        headers.insert(name, line);
    }
}

/// Removes the hop-by-hop fields: the known ones and those that `Connection` names. Returns whether
/// `Connection` requested an upgrade.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) -> bool {
    // One pass over the names: most messages have none of these fields, and looking up each of them by
    // name costs more.
    let (mut connection, mut others, mut disguised) = (false, false, false);
    for name in headers.keys() {
        let length = name.as_str().len();
        if let 9 | 14..=20 = length {
            disguised |= memchr(b'_', name.as_str().as_bytes()).is_some();
        }
        match length {
            2 => others |= name == header::TE,
            // A CGI program would take it for `HTTP_PROXY`, the proxy for its own requests.
            5 => others |= name == PROXY,
            10 if name == header::CONNECTION => connection = true,
            10 => others |= name == KEEP_ALIVE,
            16 => others |= name == PROXY_CONNECTION,
            17 => others |= name == header::TRANSFER_ENCODING,
            _ => {}
        }
    }
    if disguised {
        remove_disguised(headers);
    }
    let mut upgrade = false;
    if connection {
        let named: Vec<HeaderValue> = headers
            .get_all(header::CONNECTION)
            .iter()
            .cloned()
            .collect();
        for token in named.iter().flat_map(tokens) {
            match HeaderName::from_bytes(token) {
                Ok(name) if name == header::UPGRADE => upgrade = true,
                // Without these the message would have a different meaning.
                Ok(name) if name == header::HOST || name == header::CONTENT_LENGTH => {}
                Ok(name) if name == header::TE => {}
                Ok(name) => {
                    headers.remove(name);
                }
                Err(_) => {}
            }
        }
        headers.remove(header::CONNECTION);
    }
    let upgrade = upgrade && has_upgrade(headers);
    if !others {
        return upgrade;
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY);
    headers.remove(PROXY_CONNECTION);
    if headers.remove(header::TRANSFER_ENCODING).is_some() {
        // If an app sends both, the chunks count (RFC 9112, 6.3).
        headers.remove(header::CONTENT_LENGTH);
    }
    if let Some(te) = headers.remove(header::TE) {
        // The only value that concerns the message and not the hop; gRPC requires it.
        let trailers = |token: &[u8]| token.eq_ignore_ascii_case(b"trailers");
        if tokens(&te).any(trailers) {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    upgrade
}

/// Removes fields like `X_Forwarded_For`, which many frameworks read as `X-Forwarded-For`.
fn remove_disguised(headers: &mut HeaderMap) {
    let is_own = |name: &&HeaderName| {
        let text = name.as_str().replace('_', "-");
        let own = text.starts_with(FORWARDED_ANY) || REAL_IP == text.as_str();
        name.as_str().contains('_') && own
    };
    let disguised: Vec<_> = headers.keys().filter(is_own).cloned().collect();
    for name in disguised {
        headers.remove(name);
    }
}

/// Whether there is a protocol to switch to. HTTP/2 does not count: requests in such a tunnel would
/// bypass every route and every check.
fn has_upgrade(headers: &HeaderMap) -> bool {
    let mut names = headers.get_all(header::UPGRADE).iter().flat_map(tokens);
    headers.contains_key(header::UPGRADE) && !names.any(|name| name.eq_ignore_ascii_case(b"h2c"))
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let parts = value.as_bytes().split(|&b| b == b',');
    parts.map(|t| t.trim_ascii()).filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |&(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn what_connection_names_goes_and_the_framing_stays() {
        let mut headers = map(&[
            ("host", "a"),
            ("connection", "close, X-Secret,host"),
            ("connection", "content-length"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy", "http://evil.example"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip, trailers"),
            ("content-length", "3"),
            ("x-kept", "1"),
        ]);
        assert!(!strip_hop_by_hop(&mut headers));
        let left = map(&[("host", "a"), ("te", "trailers"), ("x-kept", "1")]);
        assert_eq!(headers, left, "with chunks a length means nothing");
    }

    #[test]
    fn an_upgrade_needs_both_fields() {
        assert!(strip_hop_by_hop(&mut map(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ])));
        assert!(!strip_hop_by_hop(&mut map(&[("upgrade", "websocket")])));
        assert!(!strip_hop_by_hop(&mut map(&[("connection", "upgrade")])));
        assert!(!strip_hop_by_hop(&mut map(&[
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", "websocket, H2C"),
        ])));
    }

    #[test]
    fn a_stranger_cannot_say_who_it_is() {
        let sent = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
            ("x-forwarded-prefix", "/evil"),
            ("x-forwarded-port", "1"),
            ("x_forwarded_prefix", "/evil"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded_proto", "https"),
            ("x_real_ip", "6.6.6.6"),
            ("x_other_thing_ab", "1"),
        ];
        let host = HeaderValue::from_static("a.org");
        let mut headers = map(&sent);
        strip_hop_by_hop(&mut headers);
        let disguised = |name: &&HeaderName| name.as_str().contains('_');
        let left: Vec<_> = headers.keys().filter(disguised).collect();
        assert_eq!(left, ["x_other_thing_ab"]);
        let peer: IpAddr = "::ffff:1.2.3.4".parse().unwrap();
        Client::new(peer, false, false).introduce(&mut headers, &host);
        assert_eq!(headers["x-forwarded-for"], "1.2.3.4");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "a.org");
        assert!(!headers.contains_key("x-forwarded-prefix"));
        assert_eq!(headers["x-forwarded-port"], "80");
        assert_eq!(headers["x-real-ip"], "1.2.3.4");
        assert_eq!(
            headers["forwarded"],
            "for=1.2.3.4;host=\"a.org\";proto=http"
        );

        let mut headers = map(&sent);
        Client::new(peer, false, true).introduce(&mut headers, &host);
        assert_eq!(headers["x-forwarded-for"], "6.6.6.6, 1.2.3.4");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-port"], "1");
        assert!(
            headers["forwarded"]
                .as_bytes()
                .starts_with(b"for=6.6.6.6, for=1")
        );
    }
}
