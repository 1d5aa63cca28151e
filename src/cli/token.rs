//! `cutover token`: prints the API's token.

use std::io;

use clap::Args;

use super::{Error, Global, configuration, print};

/// Print the API's token, for use from other machines
#[derive(Debug, Args)]
pub struct Token {}

/// Prints the agent's token named `admin`.
pub fn run(_: Token, global: &Global) -> Result<(), Error> {
    let path = configuration::data_dir(global)?.join("token");
    let shown = path.display();
    match std::fs::read_to_string(&path) {
        Ok(token) => {
            print::line(token.trim());
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::usage(format!(
            "there is no token at `{shown}`"
        ))
        .hint(
            "`cutover serve` creates it at its first start, unless `CUTOVER_TOKEN` is set there",
        )),
        Err(error) => Err(Error::usage(format!("`{shown}` cannot be read"))
            .because(&error)
            .hint("run this as the agent's user, for example with sudo")),
    }
}
