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

    /// The address of `host` at the proxy, without a path: over TLS if there is a certificate for it or
    /// will be.
    pub fn url(&self, host: &str) -> String {
        let https = self.proxy.https.filter(|_| self.may_be_certified(host));
        let (scheme, port, usual) = match https {
            Some(https) => ("https", https.port(), 443),
            None => ("http", self.proxy.http.port(), 80),
        };
        // Port 0 lets the kernel choose, which only tests use.
        match port {
            port if port == usual || port == 0 => format!("{scheme}://{host}"),
            port => format!("{scheme}://{host}:{port}"),
        }
    }

    /// Which names the owner's certificates are for is not looked up here.
    fn may_be_certified(&self, host: &str) -> bool {
        let acme = self.proxy.acme.as_ref();
        acme.is_some_and(|acme| acme.cannot(host).is_none())
            || self.has_own_certificates().unwrap_or(false)
    }

    fn has_own_certificates(&self) -> std::io::Result<bool> {
        let folder = self.proxy.certificates.clone();
        let folder = folder.unwrap_or_else(|| self.agent.data_dir.join("certs"));
        let mut files = folder.read_dir()?;
        Ok(files.any(|file| file.is_ok_and(|it| it.path().extension() == Some("pem".as_ref()))))
    }
}

fn own_host(address: std::net::SocketAddr) -> String {
    match address.ip() {
        ip if ip.is_unspecified() => "localhost".to_owned(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::config::load;

    #[test]
    fn an_address_is_https_only_where_there_can_be_a_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        let url = |proxy: &str, host: &str| {
            let text = format!("[agent]\ndata_dir = 'data'\n[proxy]\n{proxy}\n");
            fs::write(&path, text).unwrap();
            load(&path).unwrap().url(host)
        };
        assert_eq!(url("", "a.example.org"), "http://a.example.org");
        let https = "https = '0.0.0.0:443'";
        assert_eq!(url(https, "shop.acme.io"), "https://shop.acme.io");
        assert_eq!(url(https, "shop.localhost"), "http://shop.localhost");
        let off = format!("{https}\nacme = false");
        assert_eq!(url(&off, "shop.acme.io"), "http://shop.acme.io");
        fs::create_dir_all(folder.path().join("data/certs")).unwrap();
        fs::write(folder.path().join("data/certs/own.pem"), "").unwrap();
        assert_eq!(url(&off, "shop.acme.io"), "https://shop.acme.io");
    }
}
