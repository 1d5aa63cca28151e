//! Addresses that people can open.

use crate::config::{App, Config};
use crate::ids::DeploymentId;

/// Where the app is reached: its first host, at the proxy's own ports.
pub fn environment(config: &Config, app: &App) -> Option<String> {
    Some(format!("{}/", at(config, app.domains.first()?)))
}

/// Where a deployment's log is, for an agent that is reached under a name of its own.
pub fn log(config: &Config, id: &DeploymentId) -> Option<String> {
    let base = at(config, config.agent.domain.as_ref()?);
    Some(format!("{base}/api/v1/deployments/{id}/log"))
}

fn at(config: &Config, host: &str) -> String {
    let (scheme, port, usual) = match config.proxy.https {
        Some(https) => ("https", https.port(), 443),
        None => ("http", config.proxy.http.port(), 80),
    };
    // Port 0 is one that the kernel picks, which only tests want.
    match port {
        port if port == usual || port == 0 => format!("{scheme}://{host}"),
        port => format!("{scheme}://{host}:{port}"),
    }
}
