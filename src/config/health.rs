//! `[apps.NAME.health]`: what makes a new release healthy.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue, header};
use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::claims;
use super::command::{Command, command};
use super::file::{Node, Section};
use super::values::{duration, positive};

#[derive(Debug, Clone)]
pub struct Health {
    pub path: String,
    /// The name that probes ask for. Absent: one of the app's domains.
    pub host: Option<String>,
    /// More header fields of a probe, by their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub interval: Duration,
    pub timeout: Duration,
    /// How many successful probes in a row make an instance healthy.
    pub successes: u32,
    pub deadline: Duration,
    pub check: Check,
}

/// How an instance is asked whether it is healthy. Stored with a release.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// As a visitor comes: `path` at the app's own port.
    #[default]
    Route,
    /// `path` at a port that gets no other requests.
    Http { port: u16 },
    /// It accepts connections.
    Tcp { port: u16 },
    /// The command succeeds in its container.
    Command(Command),
    /// It has run for so long.
    Running { ms: u64 },
}

/// How long a process must have run to count as healthy.
const RUNNING: Duration = Duration::from_secs(3);

/// The most header fields of a probe.
const MAX_HEADERS: usize = 32;

/// Fields that frame the message or belong to its connection.
const NOT_THEIRS: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// `usual`: the path where none is named.
pub(super) fn health(mut section: Section<'_>, usual: &str) -> Health {
    let path = section.read("path", a_path);
    let host = section.read("host", a_host);
    let headers = section.read("headers", some_headers);
    let interval = section.read("interval", |node| positive(&node));
    let timeout = section.read("timeout", |node| positive(&node));
    let successes = section.read("successes", |node| node.integer(1, 100));
    let deadline_node = section.node("deadline");
    let deadline = deadline_node.as_ref().and_then(positive);
    let health = Health {
        path: path.unwrap_or(usual.into()),
        host,
        headers: headers.unwrap_or_default(),
        interval: interval.unwrap_or(Duration::from_millis(500)),
        timeout: timeout.unwrap_or(Duration::from_secs(5)),
        successes: successes.unwrap_or(2) as u32,
        deadline: deadline.unwrap_or(Duration::from_secs(60)),
        check: Check::Route,
    };
    reachable(&section, &health, deadline_node);
    section.done();
    health
}

/// Of a process that takes no requests.
pub(super) fn of_process(mut section: Section<'_>) -> Health {
    let http = section.read("http", a_path);
    let port = section.read("port", |node| node.integer(1, 65535));
    let tcp = section.read("tcp", |node| node.integer(1, 65535));
    let command = section.read("command", command);
    let running = section.read("running", duration);
    let ways = ["http", "tcp", "command", "running"].map(|key| section.has(key));
    if ways.iter().filter(|has| **has).count() > 1 {
        section.report(format!(
            "`{}`, `tcp`, `command` and `running` are four ways to check: expected one of them",
            section.key("http")
        ));
    }
    if section.has("http") != section.has("port") {
        section.report(format!(
            "`{}` and `port` belong together: expected both or neither",
            section.key("http")
        ));
    }
    let interval = section.read("interval", |node| positive(&node));
    let timeout = section.read("timeout", |node| positive(&node));
    let successes = section.read("successes", |node| node.integer(1, 100));
    let deadline_node = section.node("deadline");
    let deadline = deadline_node.as_ref().and_then(positive);
    let check = match (port, tcp, command) {
        (Some(port), ..) => Check::Http { port: port as u16 },
        (_, Some(port), _) => Check::Tcp { port: port as u16 },
        (_, _, Some(command)) => Check::Command(command),
        _ => Check::Running {
            ms: running.unwrap_or(RUNNING).as_millis() as u64,
        },
    };
    let health = Health {
        path: http.unwrap_or("/".into()),
        host: None,
        headers: BTreeMap::new(),
        interval: interval.unwrap_or(Duration::from_millis(500)),
        timeout: timeout.unwrap_or(Duration::from_secs(5)),
        successes: successes.unwrap_or(2) as u32,
        deadline: deadline.unwrap_or(Duration::from_secs(60)),
        check,
    };
    reachable(&section, &health, deadline_node);
    section.done();
    health
}

/// A process that is healthy once it has run for a while.
pub(super) fn running() -> Health {
    Health {
        path: "/".into(),
        host: None,
        headers: BTreeMap::new(),
        interval: Duration::from_millis(500),
        timeout: Duration::from_secs(5),
        successes: 2,
        deadline: Duration::from_secs(60),
        check: Check::Running {
            ms: RUNNING.as_millis() as u64,
        },
    }
}

/// Reports a deadline that cannot be met.
fn reachable(section: &Section<'_>, health: &Health, deadline_node: Option<Node<'_>>) {
    let least = health.interval.saturating_mul(health.successes - 1);
    if least >= health.deadline {
        let text = format!(
            "`{}` is too short for {} successes {} ms apart: expected more than {} ms, is {} ms",
            section.key("deadline"),
            health.successes,
            health.interval.as_millis(),
            least.as_millis(),
            health.deadline.as_millis(),
        );
        match deadline_node {
            Some(node) => node.report(text).unwrap_or_default(),
            None => section.report(text),
        }
    }
}

fn a_path(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str = "a path such as \"/\" or \"/healthz\", without spaces";
    let text = node.str(EXPECTED)?;
    let good = text.starts_with('/')
        && !text.contains('#')
        && text.parse::<http::uri::PathAndQuery>().is_ok();
    good.then(|| text.to_owned())
        .or_else(|| node.wrong(EXPECTED))
}

/// The name that probes ask for.
fn a_host(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str = "a host name such as \"hello.example.com\"";
    let text = node.str(EXPECTED)?;
    if text.starts_with("*.") {
        return node.wrong("one host name, not a wildcard");
    }
    claims::host(text).map_or_else(|expected| node.wrong(expected), Some)
}

/// Header fields by their names in lower case. Messages do not show the values: one may be a
/// password.
fn some_headers(node: Node<'_>) -> Option<BTreeMap<String, String>> {
    const EXPECTED: &str = "a table of names and values such as { Accept = \"text/html\" }";
    let entries = node.entries(EXPECTED)?;
    if entries.len() > MAX_HEADERS {
        return node.wrong_unshown(format!("at most {MAX_HEADERS} header fields"));
    }
    let mut headers = BTreeMap::new();
    for (name, node) in entries {
        let named = HeaderName::from_bytes(name.as_bytes());
        let Ok(named) = named else {
            let text = format!(
                "`{}` is not the name of a header field",
                name.escape_debug()
            );
            node.file.report(node.start, text);
            continue;
        };
        if named == header::HOST {
            node.wrong_unshown::<()>("no `Host` among the header fields: set `health.host`");
            continue;
        }
        if NOT_THEIRS.contains(&named) {
            node.wrong_unshown::<()>("no header field that belongs to the connection");
            continue;
        }
        match node.value.get_ref() {
            DeValue::String(text) if HeaderValue::from_str(text).is_ok() => {
                if headers
                    .insert(named.to_string(), text.to_string())
                    .is_some()
                {
                    node.wrong_unshown::<()>("each header field once");
                }
            }
            _ => {
                node.wrong_unshown::<()>("a string without control characters");
            }
        }
    }
    Some(headers)
}
