//! `cutover completions`: a script that teaches a shell these verbs.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Error, print};

/// Print a shell's completion script
#[derive(Debug, Args)]
pub struct Completions {
    /// bash, zsh, fish, elvish or powershell
    shell: Shell,
}

/// Prints the script to stdout.
pub fn run(args: Completions) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cutover", &mut script);
    print::raw(&script);
    Ok(())
}
