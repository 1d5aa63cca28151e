//! Finds and reads deploy.toml for a verb.

use std::path::{Path, PathBuf};

use crate::config::{self, Config, Loaded, Problems};

use super::{Error, Global};

/// The configuration that the command line names, or the one that is found, with its path. All mistakes
/// in it are reported as one error, with exit code 2.
pub fn load(global: &Global) -> Result<(PathBuf, Config), Error> {
    let path = config::find(global.config.as_deref()).map_err(|problems| error(&problems))?;
    Ok((path.clone(), read(&path)?.config))
}

/// The same, with the file's text and its absolute path.
pub fn loaded(global: &Global) -> Result<Loaded, Error> {
    let path = config::find(global.config.as_deref()).map_err(|problems| error(&problems))?;
    read(&path)
}

/// The folder in which the agent with that configuration keeps its files. A mistake in the file does
/// not prevent access to a running agent, which still uses the file as it was before.
pub fn data_dir(global: &Global) -> Result<PathBuf, Error> {
    let path = config::find(global.config.as_deref()).map_err(|problems| error(&problems))?;
    match read(&path) {
        Ok(loaded) => Ok(loaded.config.agent.data_dir),
        Err(mistakes) => config::data_dir(&path)
            .filter(|folder| folder.join("agent.sock").exists())
            .ok_or(mistakes),
    }
}

fn read(path: &Path) -> Result<Loaded, Error> {
    Loaded::read(path).map_err(|problems| error(&problems))
}

/// The same, or `None` if there is no such file yet.
pub fn load_if_any(global: &Global) -> Result<Option<(PathBuf, Config)>, Error> {
    match config::find(global.config.as_deref()) {
        Ok(path) if path.exists() => load(global).map(Some),
        _ => Ok(None),
    }
}

/// A file's mistakes, each on its own line in the form that editors can jump to.
fn error(problems: &Problems) -> Error {
    match problems.list.as_slice() {
        [_] => Error::usage(problems.to_string()),
        several => Error::usage(format!(
            "{} mistakes in the configuration\n{problems}",
            several.len()
        )),
    }
}
