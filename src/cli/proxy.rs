//! `cutover proxy`: the data plane as its own process.

use clap::Args;

use super::{Error, Global};

/// Run the data plane: sockets, routes, draining. `serve` starts it by itself
#[derive(Debug, Args)]
pub struct Proxy {}

/// Forwards until it is told to leave and has drained.
pub async fn run(args: Proxy, global: &Global) -> Result<(), Error> {
    let _ = (args, global);
    Err(Error::usage("`cutover proxy` is being built"))
}
