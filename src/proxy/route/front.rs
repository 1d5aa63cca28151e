//! What a route's requests have to pass before they reach the app, and what becomes of headers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use super::pattern::PathPattern;

/// Whatever is absent costs nothing.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct Front {
    /// Where every request is sent, as there is no app.
    pub redirect: Option<Redirect>,
    /// The host that requests for others of the route's are sent to.
    pub canonical: Option<String>,
    /// The value of Strict-Transport-Security.
    pub hsts: Option<String>,
    /// The only networks whose clients come in. Empty: all.
    pub allow: Vec<IpNet>,
    /// Networks whose clients do not.
    pub deny: Vec<IpNet>,
    pub rate_limit: Option<RateLimit>,
    /// Who has to name themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// Whether the paths of cookies are moved below the route's own.
    #[serde(skip_serializing_if = "is_false")]
    pub scope_cookie_paths: bool,
    /// Whether responses are compressed.
    #[serde(skip_serializing_if = "is_false")]
    pub compress: bool,
    /// How much of a request's body stays in memory while it is taken in whole. Absent: it is passed on as it comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer_requests: Option<u64>,
    /// How many requests and WebSockets each release has at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u64>,
    /// What the access log says of the requests. Absent: what it says of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<Logged>,
    pub request_headers: Changes,
    pub response_headers: Changes,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Redirect {
    /// Without a slash at its end, if the path is added.
    pub to: String,
    /// Whether browsers may remember it.
    pub permanent: bool,
    /// Whether path and query are added.
    pub keep_path: bool,
}

/// How many requests of one client are taken.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    pub requests: u32,
    pub window_ms: u64,
    /// How many may come at once.
    pub burst: u32,
}

/// Who comes in by name and password (RFC 7617). Without a user: nobody.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct BasicAuth {
    pub users: Vec<User>,
    /// Paths for which nobody is asked.
    #[serde(default)]
    pub except: Vec<PathPattern>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq)]
pub struct User {
    pub name: String,
    /// Of the password, by bcrypt.
    pub hash: String,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// What the access log says of a route's requests.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct Logged {
    /// Header fields of the request that are logged too, by their names in lower case.
    pub headers: Vec<String>,
    /// Paths whose requests are not logged.
    pub except: Vec<PathPattern>,
}

/// Changes of header fields, in this order.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct Changes {
    pub remove: Vec<String>,
    pub set: BTreeMap<String, String>,
    pub add: BTreeMap<String, String>,
}

impl Front {
    /// Whether a client at this address comes in.
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let among = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        (self.allow.is_empty() || among(&self.allow)) && !among(&self.deny)
    }
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in fields(&self.set) {
            headers.insert(name, value);
        }
        for (name, value) in fields(&self.add) {
            headers.append(name, value);
        }
    }
}

fn fields(all: &BTreeMap<String, String>) -> impl Iterator<Item = (HeaderName, HeaderValue)> + '_ {
    all.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(value).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_denied_stays_out_even_where_the_network_is_allowed() {
        let networks = |all: &[&str]| all.iter().map(|it| it.parse().unwrap()).collect();
        let front = Front {
            allow: networks(&["10.0.0.0/8", "2001:db8::/32"]),
            deny: networks(&["10.1.0.0/16"]),
            ..Front::default()
        };
        for (address, admitted) in [
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("10.1.0.1", false),
            ("2001:db8::7", true),
            ("192.0.2.1", false),
        ] {
            assert_eq!(
                front.admits(address.parse().unwrap()),
                admitted,
                "{address}"
            );
        }
        assert!(Front::default().admits("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn fields_are_removed_then_set_then_added() {
        let map = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let changes = Changes {
            remove: vec!["server".into(), "x-a".into()],
            set: map("x-b", "2"),
            add: map("x-a", "3"),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [("server", "s"), ("x-a", "1"), ("x-b", "1"), ("x-b", "1")] {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        changes.apply(&mut headers);
        assert_eq!(headers.len(), 2);
        assert_eq!(
            (&headers["x-a"], &headers["x-b"]),
            (&"3".parse().unwrap(), &"2".parse().unwrap())
        );
    }
}
