//! The route table: what the agent sends and what the proxy keeps on disk.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Every route there is. Sent whole, never as a difference.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Rises with every change.
    pub generation: u64,
    pub routes: Vec<Route>,
    /// What clients read instead of the proxy's own sentence, by status, where a route has no page
    /// for it.
    #[serde(default)]
    pub pages: BTreeMap<u16, Page>,
}

impl Table {
    /// Without pages.
    pub fn new(generation: u64, routes: Vec<Route>) -> Self {
        let pages = BTreeMap::new();
        Self {
            generation,
            routes,
            pages,
        }
    }
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

/// Host and path prefix -> the targets of one release.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Route {
    pub app: String,
    pub release: String,
    /// The table's generation at the last change of this route.
    pub generation: u64,
    /// Lower case; `*.example.com` stands for any one or more labels. Empty: every host that no
    /// other route claims.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Starts with `/`; matches whole path segments.
    #[serde(default = "root")]
    pub path_prefix: String,
    /// Empty: there is no release yet, or it is down: 503 with Retry-After.
    #[serde(default)]
    pub targets: Vec<SocketAddr>,
    #[serde(default)]
    pub settings: Settings,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            app: String::new(),
            release: String::new(),
            generation: 0,
            hosts: Vec::new(),
            path_prefix: root(),
            targets: Vec::new(),
            settings: Settings::default(),
        }
    }
}

fn root() -> String {
    "/".into()
}

/// How a route treats its requests. Times are milliseconds.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default)]
pub struct Settings {
    /// How long one target has to accept a connection.
    pub connect_timeout_ms: u64,
    /// From the last byte of the request to the first byte of the answer.
    pub first_byte_timeout_ms: u64,
    /// The longest silence in a body, either way, and in a WebSocket: none.
    pub body_idle_timeout_ms: u64,
    /// How long an idle connection to the app is kept; below the app's own limit.
    pub keep_alive_ms: u64,
    /// Bytes; a larger request body is refused with 413. Absent: no limit.
    pub max_body: Option<u64>,
    /// How long a request waits while the route has no target, before the 503.
    pub hold_ms: u64,
    /// How long a request is held back before it goes on, unless a newer table lets it go on sooner.
    pub pause_ms: u64,
    /// The app is being worked on: every request gets 503 and this page.
    pub maintenance: Option<Page>,
    /// What clients read instead of the proxy's own sentence, by status.
    pub pages: BTreeMap<u16, Page>,
    /// The targets speak HTTP/2 without TLS, and nothing else.
    pub h2c: bool,
    /// Take the path prefix off before the app sees the path.
    pub strip_prefix: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 2_000,
            first_byte_timeout_ms: 60_000,
            body_idle_timeout_ms: 60_000,
            // Node closes after 5 s, gunicorn and uvicorn after 2 s or 5 s.
            keep_alive_ms: 1_500,
            max_body: None,
            hold_ms: 0,
            pause_ms: 0,
            maintenance: None,
            pages: BTreeMap::new(),
            h2c: false,
            strip_prefix: false,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::Route;

    pub fn route(app: &str, hosts: &[&str], prefix: &str, generation: u64) -> Route {
        Route {
            app: app.into(),
            hosts: hosts.iter().map(|h| h.to_string()).collect(),
            path_prefix: prefix.into(),
            generation,
            ..Default::default()
        }
    }
}
