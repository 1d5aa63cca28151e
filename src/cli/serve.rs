//! `cutover serve`: the agent. The only place that wires things together.

use clap::Args;

use super::{Error, Global};

/// Run the agent: webhooks, API, dashboard, deployments; starts the proxy or adopts a running one
#[derive(Debug, Args)]
pub struct Serve {}

/// Serves until SIGTERM or SIGINT.
pub async fn run(args: Serve, global: &Global) -> Result<(), Error> {
    let _ = (args, global);
    Err(Error::usage("`cutover serve` is being built"))
}
