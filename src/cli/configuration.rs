//! Finding and reading deploy.toml for a verb.

use std::path::PathBuf;

use crate::config::Config;

use super::{Error, Global};

/// The configuration that this command line names, or the one that is found, and where it is.
/// Every mistake in it is one error, exit code 2.
pub fn load(global: &Global) -> Result<(PathBuf, Config), Error> {
    let _ = global;
    Err(Error::usage("reading deploy.toml is being built"))
}

/// The same, or `None` where no configuration is named and none is found.
pub fn load_if_any(global: &Global) -> Result<Option<(PathBuf, Config)>, Error> {
    let _ = global;
    Ok(None)
}
