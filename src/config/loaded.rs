//! deploy.toml as it was read at one moment.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::validate::{parse, read};
use super::{Config, Problems};

/// A file that was read and has no mistakes.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// Absolute.
    pub path: PathBuf,
    pub text: String,
    pub at: SystemTime,
}

/// The configuration in a file, as [`Loaded::read`] reads it.
pub fn load(path: &Path) -> Result<Config, Problems> {
    Loaded::read(path).map(|loaded| loaded.config)
}

impl Loaded {
    /// Reads and checks the file. An error holds every mistake in it, or the one reason why it cannot
    /// be read at all. Nothing but this file is opened.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        let at = SystemTime::now();
        let text = read(path)?;
        let absolute = std::path::absolute(path)
            .map_err(|error| Problems::whole_file(path, format!("invalid path: {error}")))?;
        let config = parse(path, folder(&absolute), &text)?;
        Ok(Self {
            config,
            path: absolute,
            text,
            at,
        })
    }
}

/// Where relative paths in the file start.
fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}
