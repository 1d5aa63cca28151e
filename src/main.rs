use std::process::ExitCode;

use clap::Parser;
use cutover::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
