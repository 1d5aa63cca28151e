//! deploy.toml, read and checked. `file` mirrors the text, `validate` turns it into [`Config`] and
//! collects every problem, so that one run of `cutover check` shows them all.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::ids::AppName;
use crate::webhook::Forge;

mod addresses;
mod app;
mod app_proxy;
pub mod changes;
mod claims;
mod file;
mod find;
mod loaded;
mod path_filter;
mod paths;
mod pattern;
mod problems;
mod repo;
mod report;
mod secret;
mod units;
mod validate;
mod values;
mod warnings;

#[cfg(test)]
mod tests;

pub use find::find;
pub use loaded::{Loaded, Since, data_dir, load, unnamed};
pub use path_filter::PathFilter;
pub use pattern::Pattern;
pub use problems::{Problem, Problems};
pub(crate) use repo::repo as repository;
#[cfg(test)]
pub(crate) use report::address as forge_address;
pub use report::{ForgeAddress, ForgeApi, encoded};
pub use secret::{Secret, SecretError};
pub use warnings::warnings;

/// A whole deploy.toml that has been checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub agent: Agent,
    pub proxy: Proxy,
    pub docker: Docker,
    pub apps: BTreeMap<AppName, Arc<App>>,
}

impl Config {
    /// With what is read only at a start as it is in `running`.
    pub fn with_start_of(self, running: &Self) -> Self {
        Self {
            agent: Agent {
                listen: running.agent.listen,
                data_dir: running.agent.data_dir.clone(),
                ..self.agent
            },
            proxy: Proxy {
                error_pages: self.proxy.error_pages,
                ..running.proxy.clone()
            },
            docker: running.docker.clone(),
            apps: self.apps,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Agent {
    /// Where webhooks, the API and the dashboard are served.
    pub listen: SocketAddr,
    /// The database, logs, mirrors and sockets.
    pub data_dir: PathBuf,
    /// The host name under which the proxy forwards to the agent itself.
    pub domain: Option<String>,
    /// Where deliveries may come from, for apps that do not say so themselves. `None`: anywhere.
    pub webhook_networks: Option<Vec<IpNet>>,
}

#[derive(Debug, Clone)]
pub struct Proxy {
    pub http: SocketAddr,
    /// Absent: plain HTTP only.
    pub https: Option<SocketAddr>,
    /// The folder of `NAME.pem` and `NAME.key`. Absent: `certs` in the data folder.
    pub certificates: Option<PathBuf>,
    /// The proxies whose X-Forwarded-For and similar headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Where every connection begins with a PROXY header.
    pub proxy_protocol: Listeners,
    /// The files of the proxy's own pages, by status.
    pub error_pages: BTreeMap<u16, PathBuf>,
    /// Absent: none is written.
    pub access_log: Option<PathBuf>,
}

/// Some of the proxy's listeners.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listeners {
    pub http: bool,
    pub https: bool,
}

#[derive(Debug, Clone)]
pub struct Docker {
    /// `unix:///…` or `tcp://host:port`.
    pub host: String,
}

#[derive(Debug, Clone)]
pub struct App {
    pub name: AppName,
    /// The app's former name; its releases, routes and history are carried over.
    pub was: Option<AppName>,
    pub repo: Repo,
    pub branch: String,
    /// Further branches of which a push is deployed, as patterns.
    pub branches: Vec<Pattern>,
    /// Tags of which a push is deployed, as patterns.
    pub tags: Vec<Pattern>,
    /// A push to a branch is deployed only if it changes one of these. `None`: every push is.
    pub paths: Option<PathFilter>,
    /// Host names, lower case; `*.example.com` stands for every name below it. Empty: the app answers
    /// for every host no other app claims.
    pub domains: Vec<String>,
    /// The port that the app listens on inside its container.
    pub port: u16,
    pub protocol: Protocol,
    pub webhook: Webhook,
    /// If absent, nothing is reported to a forge.
    pub report: Option<Report>,
    pub source: Source,
    pub build: Build,
    pub health: Health,
    pub deploy: Deploy,
    pub run: Run,
    pub hooks: Hooks,
    pub proxy: AppProxy,
}

/// What an app speaks on its port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Http1,
    /// HTTP/2 without TLS and without an upgrade, as gRPC servers do.
    H2c,
}

/// Where an app's commits come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repo {
    /// An `https://` or `http://` address.
    Http(String),
    /// `ssh://user@host[:port]/path` or `user@host:path`.
    Ssh(String),
    /// A bare repository on this machine.
    Local(PathBuf),
}

#[derive(Debug, Clone)]
pub struct Webhook {
    /// The forge that sends; if absent, it is detected from the request headers.
    pub forge: Option<Forge>,
    /// Several while rotating. None: every delivery is refused.
    pub secrets: Vec<Secret>,
    /// Where deliveries may come from. `None`: as `agent.webhook_networks` says.
    pub networks: Option<Vec<IpNet>>,
}

/// The forge to report deployments to: `[apps.NAME.report]`.
#[derive(Debug, Clone)]
pub struct Report {
    pub address: ForgeAddress,
    /// The forge's name for the environment that is deployed to.
    pub environment: String,
    /// Whether the forge's own deployments are kept too, where it has such.
    pub deployments: bool,
    pub auth: Auth,
}

/// How Cutover authenticates to the forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    Token(Secret),
    App(GitHubApp),
}

/// A GitHub App that is installed at the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitHubApp {
    /// Its client id, or its number.
    pub id: String,
    pub private_key: Secret,
    /// If absent, it is requested from GitHub.
    pub installation: Option<u64>,
}

/// How Cutover accesses a private repository: `[apps.NAME.source]`.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The user name and token for https.
    pub username: Option<String>,
    pub token: Option<Secret>,
    /// The private key for ssh.
    pub ssh_key: Option<PathBuf>,
    /// The server's pinned host key, `SHA256:…` as `ssh-keygen -l` prints it. Absent: known_hosts.
    pub host_key: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Build {
    /// The folder of the repository that is sent to the builder, `.` for all of it. Relative, without
    /// `..` or doubled slashes.
    pub context: String,
    /// The Dockerfile's path from the context folder, of the same form and inside it.
    pub dockerfile: String,
    pub args: BTreeMap<String, String>,
    pub timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct Health {
    pub path: String,
    pub interval: Duration,
    pub timeout: Duration,
    /// How many answers in a row make an instance healthy.
    pub successes: u32,
    pub deadline: Duration,
}

#[derive(Debug, Clone)]
pub struct Deploy {
    pub strategy: Strategy,
    pub drain: Duration,
    /// Zero: no bake.
    pub bake: Duration,
    pub keep_releases: usize,
    /// Whether a newer push stops a deployment that has not switched yet.
    pub supersede: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    BlueGreen,
    Canary,
    Recreate,
}

/// The settings that a release runs with.
#[derive(Debug, Clone)]
pub struct Run {
    pub env: BTreeMap<String, String>,
    pub replicas: u32,
    /// Bytes.
    pub memory: Option<u64>,
    pub cpus: Option<f64>,
    pub stop_grace: Duration,
}

/// Commands on the way; absent ones are skipped.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Run in the new image before it is released, e.g. the app's own tests.
    pub test: Option<String>,
    /// Run in the new image before it gets traffic, e.g. migrations.
    pub release: Option<String>,
}

/// How the proxy treats an app's requests: `[apps.NAME.proxy]`. Unlike what a release runs with, it
/// is the same for every release.
#[derive(Debug, Clone)]
pub struct AppProxy {
    /// The path that the app answers under, by whole segments; `/` for all.
    pub path: String,
    /// Whether `path` is stripped from requests to the app.
    pub strip_path: bool,
    /// Bytes of a request's body. Absent: no limit.
    pub max_body: Option<u64>,
    pub connect_timeout: Duration,
    /// From the end of the request to the beginning of the answer.
    pub first_byte_timeout: Duration,
    /// The longest silence inside a body.
    pub idle_timeout: Duration,
    /// How long an idle connection to the app is kept.
    pub keep_alive: Duration,
    /// How long a request waits while there is nothing to answer it.
    pub hold: Duration,
    /// How long a request is held back. Zero: not at all.
    pub pause: Duration,
    /// What every request is answered with, while it stands here.
    pub maintenance: Option<Notice>,
    /// The files of the proxy's own pages, by status.
    pub error_pages: BTreeMap<u16, PathBuf>,
}

/// What visitors are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Text(String),
    File(PathBuf),
}
