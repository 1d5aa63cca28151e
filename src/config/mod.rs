//! deploy.toml, read and checked. `file` mirrors the text, `validate` turns it into [`Config`] and
//! collects every problem, so that one run of `cutover check` shows them all.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use crate::ids::{AppName, ServiceName};
use crate::proxy::front::Redirect;

mod acme;
mod addresses;
mod app;
mod app_proxy;
mod apps;
mod basic_auth;
mod binds;
mod build;
mod capabilities;
pub mod changes;
mod claims;
mod command;
mod container;
mod cron;
mod deploy;
mod devices;
pub mod env_file;
mod file;
mod find;
mod front;
mod frontends;
mod grants;
mod health;
mod image;
mod loaded;
mod need;
mod notifier_kind;
mod notify;
mod otlp;
mod path_filter;
mod paths;
mod pattern;
mod problems;
mod process;
pub mod procfile;
mod pull;
mod quiet;
mod repo;
mod report;
mod run;
mod secret;
mod sharing;
pub mod similar;
mod site;
mod source;
mod syntax;
mod test;
mod units;
mod url;
mod validate;
mod values;
mod volumes;
mod warnings;
mod webhook;

#[cfg(test)]
mod tests;

pub use acme::{Acme, DnsCommand, ExternalAccount, LETS_ENCRYPT};
pub use app_proxy::{AppProxy, HOLD, Notice};
pub use basic_auth::{BasicAuth, BasicUser};
pub use binds::mountable;
pub use build::{Build, Named};
pub use command::Command;
pub use container::Container;
pub use cron::{Cron, Overlap, Schedule};
pub use deploy::{Deploy, Hooks, Strategy};
pub use devices::{Device, Gpus, LOG_DRIVER, LogDriver};
pub use find::find;
pub use frontends::Frontends;
pub use health::{Check, Health};
pub use image::Image;
pub use loaded::{Loaded, Since, data_dir, load, unnamed};
pub use need::Need;
pub use notifier_kind::NotifierKind;
pub use notify::{Notifier, NotifyEvent};
pub use otlp::Otlp;
pub use path_filter::PathFilter;
pub use pattern::Pattern;
pub use problems::{Problem, Problems};
pub use process::{Process, Processes};
pub use pull::Pull;
pub use quiet::Quiet;
pub use repo::Repo;
pub(crate) use repo::repo as repository;
#[cfg(test)]
pub(crate) use report::address as forge_address;
pub use report::{Auth, ForgeAddress, ForgeApi, GitHubApp, Report, encoded};
pub use run::{Run, Value, not_kept};
pub use secret::{Secret, SecretError};
pub use site::Site;
pub use source::{Signers, Source};
pub use test::Test;
pub use volumes::{Volume, VolumeSource};
pub use warnings::{EXAMPLE, is_socket, looks_secret, warnings};
pub use webhook::Webhook;

/// A complete deploy.toml that has been checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub agent: Agent,
    pub proxy: Proxy,
    pub docker: Docker,
    pub apps: BTreeMap<AppName, Arc<App>>,
    /// Whom to tell what happens, by name.
    pub notify: BTreeMap<String, Arc<Notifier>>,
}

impl Config {
    /// Replaces the settings that are read only at startup with those of `running`.
    pub fn with_start_of(self, running: &Self) -> Self {
        Self {
            agent: Agent {
                listen: running.agent.listen,
                data_dir: running.agent.data_dir.clone(),
                ..self.agent
            },
            proxy: Proxy {
                error_pages: self.proxy.error_pages,
                redirects: self.proxy.redirects,
                acme: self.proxy.acme.filter(|_| running.proxy.https.is_some()),
                ..running.proxy.clone()
            },
            docker: Docker {
                host: running.docker.host.clone(),
                ..self.docker
            },
            apps: self.apps,
            notify: self.notify,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Agent {
    /// Where webhooks, the API and the dashboard are served.
    pub listen: SocketAddr,
    /// The folder for the database, logs, mirrors and sockets.
    pub data_dir: PathBuf,
    /// The host name under which the proxy forwards to the agent itself.
    pub domain: Option<String>,
    /// The networks from which deliveries are accepted, unless an app lists its own. `None`: any.
    pub webhook_networks: Option<Vec<IpNet>>,
    /// Where traces are sent. Absent: nowhere.
    pub otlp: Option<Otlp>,
}

#[derive(Debug, Clone)]
pub struct Proxy {
    pub http: SocketAddr,
    /// Absent: plain HTTP only.
    pub https: Option<SocketAddr>,
    /// The folder that contains `NAME.pem` and `NAME.key`. Absent: `certs` in the data folder.
    pub certificates: Option<PathBuf>,
    /// Where hosts lead that have no app.
    pub redirects: BTreeMap<String, Redirect>,
    /// How certificates are ordered. Absent: not at all.
    pub acme: Option<Acme>,
    /// The proxies whose X-Forwarded-For and similar headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// The header field in which they name their client. Absent: X-Forwarded-For.
    pub client_ip_header: Option<HeaderName>,
    /// The listeners on which every connection must begin with a PROXY header.
    pub proxy_protocol: Listeners,
    /// The files of the proxy's error pages, by status.
    pub error_pages: BTreeMap<u16, PathBuf>,
    /// The file of the access log. Absent: no log is written.
    pub access_log: Option<PathBuf>,
    /// How long the head of a request or a response may be, in bytes.
    pub header_limit: usize,
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
    /// The paths of this machine below which apps may mount any.
    pub allow_binds: Vec<PathBuf>,
    /// The apps that may have what is as good as this machine: `privileged`, its network or processes, and
    /// Docker's socket.
    pub allow: Vec<AppName>,
    /// The bytes that a build needs free on the disks of Docker and of `data_dir`.
    pub min_free: u64,
    /// `None`: the engine alone decides.
    pub build_cache: Option<BuildCache>,
    /// The bytes that the steps of all builds may take together. `None`: all that there are.
    pub build_memory: Option<u64>,
    /// The processors, likewise.
    pub build_cpus: Option<f64>,
}

/// What is kept of the engine's build cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildCache {
    /// In bytes.
    pub size: Option<u64>,
    /// Since it was used last.
    pub age: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct App {
    pub name: AppName,
    /// The app's former name; its releases, routes and history are carried over.
    pub was: Option<AppName>,
    pub repo: Repo,
    /// How often the registry is asked for another image of the same name. `None`: never.
    pub poll: Option<Duration>,
    pub branch: String,
    /// Further branches whose pushes are deployed, as patterns.
    pub branches: Vec<Pattern>,
    /// Tags whose pushes are deployed, as patterns.
    pub tags: Vec<Pattern>,
    /// A push to a branch is deployed only if one of these paths has changed since the last
    /// deployment. `None`: every push is deployed.
    pub paths: Option<PathFilter>,
    /// Host names in lower case; `*.example.com` matches every name below it. Empty: the app serves
    /// every host that no other app claims.
    pub domains: Vec<String>,
    /// The address that says which further names the app serves: certificates are ordered for them when
    /// clients ask for them.
    pub domains_ask: Option<String>,
    /// The port that the app listens on inside its container. `None`: it takes no requests, and has
    /// processes only.
    pub port: Option<u16>,
    pub protocol: Protocol,
    pub webhook: Webhook,
    /// If absent, nothing is reported to a forge.
    pub report: Option<Report>,
    pub source: Source,
    pub build: Build,
    pub health: Health,
    pub deploy: Deploy,
    pub run: Run,
    /// `None`: those of the repository's Procfile.
    pub processes: Option<Processes>,
    /// Whether a Procfile is read.
    pub procfile: bool,
    /// Commands that run at certain times, by name.
    pub cron: BTreeMap<ServiceName, Cron>,
    /// What a new image has to pass before anything of it starts.
    pub test: Option<Test>,
    pub hooks: Hooks,
    pub proxy: AppProxy,
    /// Whether everybody may see its state, as a picture for a README.
    pub badge: bool,
}

impl App {
    /// Its image, if that comes from a registry.
    pub fn image(&self) -> Option<&Image> {
        match &self.repo {
            Repo::Image(image) => Some(image),
            _ => None,
        }
    }
}

/// The protocol that an app speaks on its port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Http1,
    /// HTTP/2 without TLS and without an upgrade from HTTP/1.1, as for gRPC servers.
    H2c,
}
