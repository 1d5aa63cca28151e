//! `cutover secret`: prints a new random webhook secret.

use std::io::{IsTerminal, stdout};

use clap::Args;

use super::{Error, print};

/// Print a new random webhook secret, and how to use it
#[derive(Debug, Args)]
pub struct Secret {}

/// Prints 32 random bytes in hexadecimal. The explanation goes to stderr, so that the secret can be
/// piped.
pub fn run(_: Secret) -> Result<(), Error> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::failed("failed to get random bytes from the operating system").because(&error)
    })?;
    print::line(hex::encode(bytes));
    if stdout().is_terminal() {
        eprintln!(
            "\nStore it where only the agent can read it, in a file or in its environment:\n\
             \n    [apps.NAME.webhook]\
             \n    secrets = [{{ file = \"/etc/cutover/NAME.secret\" }}]   # or {{ env = \"NAME_WEBHOOK_SECRET\" }}\n\
             \nand paste it into the forge's webhook settings as the secret, next to the address\n\
             https://YOUR-AGENT/hooks/NAME with content type application/json.\n\
             While rotating, list the new secret first and keep the old one until the forge uses the new one."
        );
    }
    Ok(())
}
