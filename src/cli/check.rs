//! `cutover check`: reads deploy.toml and reports every mistake in it.

use clap::Args;

use super::{Error, Global, configuration, print};

/// Check deploy.toml and report every mistake in it
#[derive(Debug, Args)]
pub struct Check {}

/// Reads the configuration and changes nothing. What is allowed but probably not intended is a warning
/// on stderr, and not a failure.
pub fn run(_: Check, global: &Global) -> Result<(), Error> {
    let (path, config) = configuration::load(global)?;
    let warnings = crate::config::warnings(&config).into_iter();
    let warnings = warnings.chain(crate::source::warnings(&config));
    for warning in warnings.chain(crate::certificates::names::warnings(&config)) {
        print::error(format_args!("Warning: {warning}"));
    }
    let apps = match config.apps.len() {
        1 => "1 app".to_owned(),
        n => format!("{n} apps"),
    };
    print::line(format_args!("`{}` is valid: {apps}", path.display()));
    Ok(())
}
