//! `cutover completions`: a shell's completion script for these verbs.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Error, print};

/// Print the completion script of a shell
#[derive(Debug, Args)]
pub struct Completions {
    /// Shell to print it for
    shell: Shell,
}

/// Prints the script to stdout.
pub fn run(args: Completions) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cutover", &mut script);
    print::raw(&script);
    Ok(())
}
