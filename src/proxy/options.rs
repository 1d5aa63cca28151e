//! How the proxy is to run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::downstream::certificates::Folders;
use super::downstream::limits::Limits;
use super::wire::head;
use super::worker;

/// The file in the data folder that holds the addresses in use.
pub const ADDRESSES: &str = "proxy.addr";

/// The settings that the proxy runs with.
#[derive(Clone, Debug)]
pub struct Options {
    pub http: SocketAddr,
    pub https: Option<SocketAddr>,
    pub data_dir: PathBuf,
    /// The number of event loops that handle requests.
    pub threads: usize,
    pub limits: Limits,
    /// The most connections of clients; further ones are closed at once.
    pub max_connections: usize,
    /// The most connections of one client: an IPv4 address or an IPv6 /64. Trusted proxies have no such
    /// limit.
    pub max_per_client: usize,
    /// Every connection to the plain port begins with a PROXY header, version 1 or 2.
    pub proxy_protocol: bool,
    /// The same for connections to the TLS port.
    pub proxy_protocol_tls: bool,
    /// The file that gets a line for each request. Absent: no log.
    pub access_log: Option<PathBuf>,
    /// How long requests may take to finish when the proxy shuts down.
    pub grace: Duration,
    /// How long a successor may take to start serving before the handover counts as failed.
    pub handover: Duration,
    /// The folder with `NAME.pem` and `NAME.key` for each certificate; files are read again when they
    /// change.
    pub certificates: PathBuf,
    /// Proxies in front whose X-Forwarded-For and similar fields are trusted.
    pub trusted: Vec<IpNet>,
    /// The header field in which they name their client. Absent: X-Forwarded-For.
    pub client_ip_header: Option<HeaderName>,
    /// Take the sockets over from the running proxy, if there is one.
    pub takeover: bool,
    /// An agent started it, and replaces it if its settings should be different.
    pub by_agent: bool,
}

/// The options that an agent compares with its own configuration.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Settings {
    /// As configured; port 0 means any.
    pub http: SocketAddr,
    pub https: Option<SocketAddr>,
    pub certificates: PathBuf,
    pub trusted_proxies: Vec<IpNet>,
    /// For the plain port and for the TLS port.
    pub proxy_protocol: (bool, bool),
    pub access_log: Option<PathBuf>,
    #[serde(default = "usual")]
    pub header_limit: usize,
    #[serde(default)]
    pub client_ip_header: Option<String>,
}

/// What a proxy has that does not name its own.
fn usual() -> usize {
    head::USUAL
}

impl Settings {
    /// The keys of `[proxy]` in which the two differ.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let each = [
            ("http", self.http == other.http),
            ("https", self.https == other.https),
            ("certificates", self.certificates == other.certificates),
            (
                "trusted_proxies",
                self.trusted_proxies == other.trusted_proxies,
            ),
            (
                "proxy_protocol",
                self.proxy_protocol == other.proxy_protocol,
            ),
            ("access_log", self.access_log == other.access_log),
            ("header_limit", self.header_limit == other.header_limit),
            (
                "client_ip_header",
                self.client_ip_header == other.client_ip_header,
            ),
        ];
        each.into_iter()
            .filter(|(_, same)| !same)
            .map(|(key, _)| key)
            .collect()
    }
}

impl Options {
    /// Options with defaults for everything else.
    pub fn new(http: SocketAddr, https: Option<SocketAddr>, data_dir: PathBuf) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
        Self {
            http,
            https,
            certificates: data_dir.join("certs"),
            data_dir,
            trusted: Vec::new(),
            client_ip_header: None,
            threads: cores.clamp(1, worker::MAX),
            limits: Limits {
                head_ms: 15_000,
                idle_ms: 75_000,
                write_ms: 60_000,
                head: head::USUAL,
            },
            max_connections: 100_000,
            max_per_client: 4_096,
            proxy_protocol: false,
            proxy_protocol_tls: false,
            access_log: None,
            grace: Duration::from_secs(30),
            handover: Duration::from_secs(30),
            takeover: false,
            by_agent: false,
        }
    }

    /// Where the certificates are.
    pub fn certificates(&self) -> Folders {
        Folders::new(self.certificates.clone(), &self.data_dir)
    }

    /// The settings that an agent compares.
    pub fn settings(&self) -> Settings {
        Settings {
            http: self.http,
            https: self.https,
            certificates: self.certificates.clone(),
            trusted_proxies: self.trusted.clone(),
            proxy_protocol: (self.proxy_protocol, self.proxy_protocol_tls),
            access_log: self.access_log.clone(),
            header_limit: self.limits.head,
            client_ip_header: self.client_ip_header.as_ref().map(|it| it.to_string()),
        }
    }
}
