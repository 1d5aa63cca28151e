//! URLs for people.

use crate::config::{App, Config};
use crate::ids::DeploymentId;

/// The app's URL: its first domain, with the proxy's port.
pub fn environment(config: &Config, app: &App) -> Option<String> {
    Some(format!("{}/", config.url(app.domains.first()?)))
}

/// The URL of a deployment's page, if the agent has a domain.
pub fn page(config: &Config, id: &DeploymentId) -> Option<String> {
    Some(format!("{}deployments/{id}", home(config)?))
}

/// The URL of the dashboard, if the agent has a domain.
pub fn home(config: &Config) -> Option<String> {
    Some(format!("{}/", config.url(config.agent.domain.as_ref()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn links_have_the_scheme_and_port_that_the_proxy_has() {
        let folder = tempfile::tempdir().unwrap();
        let linked = |settings: &str| {
            let path = folder.path().join("deploy.toml");
            let app = "[apps.a]\nrepo = 'a.git'\nport = 80\ndomains = ['a.acme.io', 'b.acme.io']\n";
            std::fs::write(&path, format!("{settings}\n{app}")).unwrap();
            let config = config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
            let app = config.apps.values().next().unwrap();
            let id = "d0000000000001".parse().unwrap();
            (environment(&config, app).unwrap(), page(&config, &id))
        };
        assert_eq!(linked(""), ("http://a.acme.io/".into(), None));
        assert_eq!(
            linked("proxy.http = '0.0.0.0:8080'").0,
            "http://a.acme.io:8080/"
        );
        let (environment, page) =
            linked("proxy.https = '0.0.0.0:443'\nagent.domain = 'deploy.acme.io'");
        assert_eq!(environment, "https://a.acme.io/");
        assert_eq!(
            page.unwrap(),
            "https://deploy.acme.io/deployments/d0000000000001"
        );
        assert_eq!(
            linked("proxy.https = '0.0.0.0:8443'").0,
            "https://a.acme.io:8443/"
        );
    }
}
