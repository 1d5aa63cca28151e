//! `cutover token`: the API's token.

use std::io;

use clap::Args;

use super::{Error, Global, configuration, print};

/// Print the token that API calls from elsewhere carry
#[derive(Debug, Args)]
pub struct Token {}

/// Prints the agent's token named `admin`.
pub fn run(_: Token, global: &Global) -> Result<(), Error> {
    let (_, config) = configuration::load(global)?;
    let path = config.agent.data_dir.join("token");
    let shown = path.display();
    match std::fs::read_to_string(&path) {
        Ok(token) => {
            print::line(token.trim());
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::usage(format!(
            "there is no token at `{shown}`"
        ))
        .hint("`cutover serve` makes it at its first start, unless `CUTOVER_TOKEN` is set there")),
        Err(error) => Err(Error::usage(format!("`{shown}` cannot be read"))
            .because(&error)
            .hint("run this as the user that the agent runs as, e.g. with sudo")),
    }
}
