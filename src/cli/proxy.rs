//! `cutover proxy`: the data plane as its own process.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::shutdown::shutdown;
use super::{Error, Global, configuration};
use crate::config::Config;
use crate::proxy::{self, Options};

/// Set in the environment of a proxy that was started by an agent. A binary of an older version would
/// refuse an argument.
pub const BY_AGENT: &str = "CUTOVER_PROXY_BY_AGENT";

/// Run the proxy: sockets, routes and draining (`serve` starts it by itself)
#[derive(Debug, Args)]
pub struct Proxy {
    /// Address for plain HTTP, overriding `proxy.http`
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// Address for HTTPS, overriding `proxy.https`
    #[arg(long, value_name = "ADDRESS")]
    https: Option<SocketAddr>,
    /// Folder of the routes and the control socket, overriding `agent.data_dir`
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Take over the listening sockets of the running proxy, which then drains and exits
    #[arg(long)]
    takeover: bool,
}

/// Serves until it is told to stop and has drained.
pub async fn run(args: Proxy, global: &Global) -> Result<(), Error> {
    let mut options = match (args.http, args.data_dir) {
        // This is all that is needed, so no configuration is read.
        (Some(http), Some(data_dir)) => Options::new(http, args.https, data_dir),
        (http, data_dir) => {
            let (_, mut config) = configuration::load(global)?;
            config.proxy.http = http.unwrap_or(config.proxy.http);
            config.proxy.https = args.https.or(config.proxy.https);
            config.agent.data_dir = data_dir.unwrap_or(config.agent.data_dir);
            options(config)
        }
    };
    options.takeover = args.takeover;
    options.by_agent = std::env::var_os(BY_AGENT).is_some();
    // A terminal that goes away must not take the visitors' connections with it.
    let _ignored = signal(SignalKind::hangup());
    proxy::run(options, shutdown())
        .await
        .map_err(|error| Error::failed("the proxy failed").because(&error))
}

/// The proxy's options according to deploy.toml.
pub fn options(config: Config) -> Options {
    let proxy = config.proxy;
    let mut options = Options::new(proxy.http, proxy.https, config.agent.data_dir);
    options.certificates = proxy.certificates.unwrap_or(options.certificates);
    options.trusted = proxy.trusted_proxies;
    options.client_ip_header = proxy.client_ip_header;
    options.proxy_protocol = proxy.proxy_protocol.http;
    options.proxy_protocol_tls = proxy.proxy_protocol.https;
    options.access_log = proxy.access_log;
    options.limits.head = proxy.header_limit;
    options
}
