//! Who asked for what, as far as the tally of a share tells requests apart.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::LazyLock;

use foldhash::fast::RandomState;

/// The longest path that is kept whole, in bytes.
const LONGEST: usize = 63;
/// A segment that is longer than this is a number or a token of some kind.
const LONGEST_SEGMENT: usize = 32;
/// Stands for a segment that differs from request to request.
const ANY: &[u8] = b"*";
const MORE: &[u8] = b"/...";

/// A request's path without what differs from one request to the next, and its client.
pub struct Visit {
    length: u8,
    path: [u8; LONGEST],
    client: ClientKey,
}

/// What tells a client from others.
pub type ClientKey = [u8; 16];

impl Visit {
    pub fn new(path: &str, client: ClientKey) -> Self {
        let mut visit = Self {
            length: 0,
            path: [0; LONGEST],
            client,
        };
        for segment in path.as_bytes().split(|byte| *byte == b'/').skip(1) {
            let segment = if differs(segment) { ANY } else { segment };
            let room = LONGEST - MORE.len() - visit.length as usize;
            if segment.len() + 1 > room {
                visit.push(MORE);
                break;
            }
            visit.push(b"/");
            visit.push(segment);
        }
        if visit.length == 0 {
            visit.push(b"/");
        }
        visit
    }

    /// A number that stands for the client, never 0.
    pub fn client(&self) -> u32 {
        (hash_of(&self.client) as u32).max(1)
    }

    /// The hash of its path, never 0.
    pub fn hash(&self) -> u64 {
        hash_of(&self.path[..self.length as usize])
    }

    /// Only visible ASCII: it is written to logs.
    pub fn path(&self) -> &str {
        std::str::from_utf8(&self.path[..self.length as usize]).unwrap_or("?")
    }

    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let shown = byte.is_ascii_graphic() && !b"`\"<>".contains(byte);
            if let Some(place) = self.path.get_mut(self.length as usize) {
                *place = if shown { *byte } else { b'?' };
                self.length += 1;
            }
        }
    }
}

/// A hash that is never 0, and that differs from process to process. Whoever found two paths of one hash
/// would only have them counted as one.
fn hash_of(bytes: &[u8]) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    KEYS.hash_one(bytes).max(1)
}

/// Numbers, UUIDs, hashes and tokens.
fn differs(segment: &[u8]) -> bool {
    if segment.len() > LONGEST_SEGMENT {
        return true;
    }
    let hex = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b'-';
    let digits = segment.iter().filter(|byte| byte.is_ascii_digit()).count();
    digits > 0 && (digits == segment.len() || segment.len() >= 8 && segment.iter().all(hex))
}

/// What tells the clients of a connection apart: the address, or the network that one customer gets
/// with IPv6; behind a trusted proxy, the client that it names.
pub fn client_key(address: IpAddr, named_by_proxy: Option<&[u8]>) -> ClientKey {
    let mut key = [0; 16];
    let bytes: &[u8] = match (named_by_proxy, &address) {
        (Some(named), _) => {
            let last = named
                .rsplit(|byte| *byte == b',')
                .next()
                .unwrap_or_default();
            let last = last.trim_ascii();
            // Enough of it for an IPv4 address and an IPv6 network.
            &last[..last.len().min(16)]
        }
        (None, IpAddr::V4(four)) => &four.octets(),
        (None, IpAddr::V6(six)) => &six.octets()[..8],
    };
    key[..bytes.len()].copy_from_slice(bytes);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_request_to_request_is_left_out() {
        let of = |path: &str| Visit::new(path, [1; 16]).path().to_owned();
        assert_eq!(of("/"), "/");
        assert_eq!(of(""), "/");
        assert_eq!(of("/users/4711/edit"), "/users/*/edit");
        assert_eq!(of("/x/0f8fad5b-d9cb-469f-a165-70867728950e"), "/x/*");
        assert_eq!(of("/a/facade/v2/"), "/a/facade/v2/");
        assert_eq!(of(&format!("/{}", "t".repeat(40))), "/*");
        assert_eq!(of("/a`b\"c\u{e9}"), "/a?b?c??");
        let long = of(&"/segment".repeat(20));
        assert!(
            long.ends_with("/segment/...") && long.len() <= LONGEST,
            "{long}"
        );
    }

    #[test]
    fn clients_are_told_apart_as_networks_are_given_out() {
        let client = |address: &str, named: Option<&str>| {
            let key = client_key(address.parse().unwrap(), named.map(str::as_bytes));
            Visit::new("/", key).client()
        };
        assert_ne!(client("192.0.2.1", None), client("192.0.2.2", None));
        assert_eq!(client("2001:db8::1", None), client("2001:db8::2", None));
        let behind = |named| client("127.0.0.1", Some(named));
        assert_ne!(behind("192.0.2.1"), behind("192.0.2.2"));
        assert_eq!(behind("6.6.6.6, 192.0.2.1"), behind("192.0.2.1"));
    }
}
