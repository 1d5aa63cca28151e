//! The route table: what the agent sends and what the proxy keeps on disk.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::front::Front;
use crate::proxy::wire::head;

/// All routes. Always sent whole, never as a difference.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Rises with every change.
    pub generation: u64,
    pub routes: Vec<Route>,
    /// What clients get instead of the proxy's own sentence, by status, if the route has no page for
    /// it.
    #[serde(default)]
    pub pages: BTreeMap<u16, Page>,
    /// Where apps' containers reach other apps by their names. Older proxies ignore it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<SocketAddr>,
    /// Of a million requests, how many are traced. Older proxies ignore it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub traced: u32,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl Table {
    /// A table of routes alone.
    pub fn new(generation: u64, routes: Vec<Route>) -> Self {
        Self {
            generation,
            routes,
            ..Self::default()
        }
    }
}

/// The host of a route for those who are linked to `app`. No client can ask for it: the slash is in no
/// host name.
pub fn linked(app: &str) -> String {
    format!("{app}/link")
}

/// A page for people.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Page {
    pub content_type: String,
    pub text: String,
}

impl From<&str> for Page {
    fn from(text: &str) -> Self {
        Self {
            content_type: "text/plain; charset=utf-8".into(),
            text: text.into(),
        }
    }
}

/// Host and path prefix -> the shares of its traffic.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(try_from = "Message", into = "Message")]
pub struct Route {
    pub app: String,
    /// The table's generation at the last change of this route.
    pub generation: u64,
    /// Lower case; the `*` of `*.example.com` stands for one or more labels. Empty: every host that
    /// no other route claims.
    pub hosts: Vec<String>,
    /// Starts with `/`; matches whole path segments.
    pub path_prefix: String,
    /// At least one; more than one only with a canary.
    pub shares: Vec<Share>,
    /// The release before, while it is still warm: it gets the requests that no other share takes.
    pub warm: Option<Share>,
    pub policy: Policy,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            app: String::new(),
            generation: 0,
            hosts: Vec::new(),
            path_prefix: root(),
            shares: vec![Share::whole("", 0, Vec::new())],
            warm: None,
            policy: Policy::default(),
        }
    }
}

/// A part of a route's traffic: one release and its targets.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Share {
    pub release: String,
    /// Its part of all requests, as a fraction of the sum of the route's weights.
    pub weight: u32,
    /// The table's generation at the last change of its release or targets. While this stays the
    /// same, the share keeps its connections and counters, even if weights change.
    pub generation: u64,
    /// Empty if there is no release yet or it is down: requests get 503 with Retry-After.
    pub targets: Vec<SocketAddr>,
}

/// The weight of a share that is the only one.
const WHOLE: u32 = 100;

impl Share {
    /// A share that gets all of a route's traffic.
    pub fn whole(release: impl Into<String>, generation: u64, targets: Vec<SocketAddr>) -> Self {
        Self {
            release: release.into(),
            weight: WHOLE,
            generation,
            targets,
        }
    }
}

/// A route as it is serialized. A single share is written as version 0.1.0 did, which knew nothing
/// else, so that agents, proxies and files of both versions understand each other. When there are
/// several shares, that version finds no `release` and refuses the table.
#[derive(Serialize, Deserialize)]
struct Message {
    app: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    release: Option<String>,
    generation: u64,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default = "root")]
    path_prefix: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    targets: Vec<SocketAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shares: Vec<Share>,
    /// Version 0.1.0 ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    warm: Option<Share>,
    #[serde(default)]
    settings: Policy,
}

impl TryFrom<Message> for Route {
    type Error = &'static str;

    fn try_from(message: Message) -> Result<Self, &'static str> {
        let shares = match (message.release, message.shares) {
            (Some(release), shares) if shares.is_empty() => {
                vec![Share::whole(release, message.generation, message.targets)]
            }
            (None, shares) if !shares.is_empty() && message.targets.is_empty() => shares,
            _ => return Err("a route must have either `release` and `targets`, or `shares`"),
        };
        Ok(Self {
            app: message.app,
            generation: message.generation,
            hosts: message.hosts,
            path_prefix: message.path_prefix,
            shares,
            warm: message.warm,
            policy: message.settings,
        })
    }
}

impl From<Route> for Message {
    fn from(route: Route) -> Self {
        let mut message = Self {
            app: route.app,
            release: None,
            generation: route.generation,
            hosts: route.hosts,
            path_prefix: route.path_prefix,
            targets: Vec::new(),
            shares: route.shares,
            warm: route.warm,
            settings: route.policy,
        };
        if let [only] = &mut message.shares[..]
            && (only.weight, only.generation) == (WHOLE, message.generation)
        {
            message.release = Some(std::mem::take(&mut only.release));
            message.targets = std::mem::take(&mut only.targets);
            message.shares.clear();
        }
        message
    }
}

fn root() -> String {
    "/".into()
}

/// How a route treats its requests. Times are in milliseconds.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default)]
pub struct Policy {
    /// How long one target has to accept a connection.
    pub connect_timeout_ms: u64,
    /// From the last byte of the request to the first byte of the response.
    pub first_byte_timeout_ms: u64,
    /// The longest silence in a body, in either direction. WebSockets have no such limit.
    pub body_idle_timeout_ms: u64,
    /// How long an idle connection to the app is kept; should be less than the app's own limit.
    pub keep_alive_ms: u64,
    /// The largest request body, in bytes; a larger one is refused with 413. Absent: no limit.
    pub max_body: Option<u64>,
    /// How long a request waits while the route has no target, before the 503.
    pub hold_ms: u64,
    /// How long a request is held back before it goes on, unless a newer table lets it go on sooner.
    pub pause_ms: u64,
    /// The app is under maintenance: every request gets 503 and this page.
    pub maintenance: Option<Page>,
    /// What clients get instead of the proxy's own sentence, by status.
    pub pages: BTreeMap<u16, Page>,
    /// The targets speak HTTP/2 without TLS, and nothing else.
    pub h2c: bool,
    /// Strip the path prefix before the app sees the path.
    pub strip_prefix: bool,
    /// Requests without TLS are redirected to where there is a certificate for their host.
    #[serde(skip_serializing_if = "is_false")]
    pub https_redirect: bool,
    /// How long the head of a response may be, in bytes.
    #[serde(skip_serializing_if = "is_usual")]
    pub header_limit: usize,
    /// What requests have to pass first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub front: Option<Arc<Front>>,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_usual(limit: &usize) -> bool {
    *limit == head::USUAL
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 2_000,
            first_byte_timeout_ms: 60_000,
            body_idle_timeout_ms: 60_000,
            // Node closes idle connections after 5 s, gunicorn and uvicorn after 2 s or 5 s.
            keep_alive_ms: 1_500,
            max_body: None,
            hold_ms: 0,
            pause_ms: 0,
            maintenance: None,
            pages: BTreeMap::new(),
            h2c: false,
            strip_prefix: false,
            https_redirect: false,
            header_limit: head::USUAL,
            front: None,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn route(app: &str, hosts: &[&str], prefix: &str, generation: u64) -> Route {
        Route {
            app: app.into(),
            hosts: hosts.iter().map(|h| h.to_string()).collect(),
            path_prefix: prefix.into(),
            generation,
            shares: vec![Share::whole("r", generation, Vec::new())],
            ..Default::default()
        }
    }

    /// A table of version 0.1.0, as written to disk and in its messages.
    const OLD: &str = r#"{"generation":7,"routes":[{"app":"a","release":"r1","generation":3,"hosts":["a.org"],"path_prefix":"/","targets":["10.0.0.2:80"],"settings":{"connect_timeout_ms":2000,"first_byte_timeout_ms":60000,"body_idle_timeout_ms":60000,"keep_alive_ms":1500,"max_body":null,"hold_ms":0,"pause_ms":0,"maintenance":null,"pages":{},"h2c":false,"strip_prefix":false}}],"pages":{}}"#;

    #[test]
    fn one_share_is_read_and_written_as_before_there_were_any() {
        let table: Table = serde_json::from_str(OLD).unwrap();
        let targets = vec!["10.0.0.2:80".parse().unwrap()];
        assert_eq!(table.routes[0].shares, [Share::whole("r1", 3, targets)]);
        assert_eq!(serde_json::to_string(&table).unwrap(), OLD);
    }

    #[test]
    fn a_warm_release_comes_back_and_an_older_proxy_ignores_it() {
        let mut watched = route("a", &[], "/", 5);
        watched.warm = Some(Share::whole("r0", 4, vec!["10.0.0.2:80".parse().unwrap()]));
        let value = serde_json::to_value(&watched).unwrap();
        assert_eq!(value["release"], "r", "as version 0.1.0 requires");
        let read = serde_json::from_value::<Route>(value).unwrap();
        assert_eq!(read, watched);
    }

    #[test]
    fn several_shares_come_back_and_an_older_proxy_refuses_them() {
        let mut canary = route("a", &[], "/", 5);
        canary.shares = vec![
            Share {
                weight: 90,
                ..Share::whole("r1", 3, vec!["10.0.0.2:80".parse().unwrap()])
            },
            Share {
                weight: 10,
                ..Share::whole("r2", 5, vec!["10.0.0.3:80".parse().unwrap()])
            },
        ];
        let mut value = serde_json::to_value(&canary).unwrap();
        assert_eq!(value.get("release"), None, "required by version 0.1.0");
        assert_eq!(
            serde_json::from_value::<Route>(value.clone()).unwrap(),
            canary
        );
        value["release"] = "r1".into();
        assert!(serde_json::from_value::<Route>(value.clone()).is_err());
        value["shares"] = serde_json::json!([]);
        assert!(serde_json::from_value::<Route>(value.clone()).is_ok());
        value.as_object_mut().unwrap().remove("release");
        assert!(serde_json::from_value::<Route>(value).is_err());
    }
}
