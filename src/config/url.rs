//! Where people reach what is served.

use super::{App, Config};

impl Config {
    /// An app's address: its first domain that is a whole name, with the proxy's port and the app's
    /// path. Without a domain, any name that leads to this machine.
    pub fn app_url(&self, app: &App) -> String {
        let mut whole = app.domains.iter().filter(|name| !name.contains('*'));
        let host = match whole.next().or(app.domains.first()) {
            Some(host) => host.clone(),
            None => own_host(self.proxy.https.unwrap_or(self.proxy.http)),
        };
        let path = &app.proxy.path;
        format!("{}{path}", self.url(&host))
    }

    /// The address of `host` at the proxy, without a path.
    pub fn url(&self, host: &str) -> String {
        let (scheme, port, usual) = match self.proxy.https {
            Some(https) => ("https", https.port(), 443),
            None => ("http", self.proxy.http.port(), 80),
        };
        // Port 0 lets the kernel choose, which only tests use.
        match port {
            port if port == usual || port == 0 => format!("{scheme}://{host}"),
            port => format!("{scheme}://{host}:{port}"),
        }
    }
}

fn own_host(address: std::net::SocketAddr) -> String {
    match address.ip() {
        ip if ip.is_unspecified() => "localhost".to_owned(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    }
}
