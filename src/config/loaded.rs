//! A deploy.toml as it was read at one moment, and how the file has changed since.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::changes::{Change, changes};
use super::validate::{self, parse, read};
use super::{App, Config, Problems};
use crate::ids::AppName;

/// A configuration file that was read and contains no mistakes.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// Absolute.
    pub path: PathBuf,
    pub text: String,
    /// When the file was read.
    pub at: SystemTime,
}

/// Loads the configuration from a file. Errors as in [`Loaded::read`].
pub fn load(path: &Path) -> Result<Config, Problems> {
    Loaded::read(path).map(|loaded| loaded.config)
}

/// The data folder that a file names, through which its agent is reached. Works even if the file as
/// a whole cannot be loaded.
pub fn data_dir(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    validate::data_dir(folder(&absolute), &read(path).ok()?)
}

/// How the file differs from what was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    Same,
    /// At least one change.
    Changed(Vec<Change>),
    /// It cannot be loaded in its present state.
    Wrong(Problems),
}

impl Loaded {
    /// Reads and checks the file. An error holds every mistake in it, or the one reason why it
    /// cannot be read at all. No other file is opened.
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

impl Loaded {
    /// Reads the file again and compares. Blocks.
    pub fn since(&self) -> Since {
        let text = match read(&self.path) {
            Ok(text) if text == self.text => return Since::Same,
            Ok(text) => text,
            Err(problems) => return Since::Wrong(problems),
        };
        if let Err(problems) = parse(&self.path, folder(&self.path), &text) {
            return Since::Wrong(problems);
        }
        match changes(&self.text, &text) {
            none if none.is_empty() => Since::Same,
            some => Since::Changed(some),
        }
    }
}

/// A stand-in for an app that is not, or no longer, in the file: it has only the keys that every
/// app must have.
pub fn unnamed(name: &AppName) -> Option<Arc<App>> {
    let path = Path::new("deploy.toml");
    let text = format!("[apps.{name}]\nrepo = '/nowhere'\nport = 80\n");
    let config = parse(path, Path::new("/"), &text).ok()?;
    config.apps.into_values().next()
}

/// The folder against which relative paths in the file are resolved.
fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}
