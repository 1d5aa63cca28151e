//! deploy.toml as it was read at one moment, and what the file says since.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::changes::{Change, changes};
use super::validate::{self, parse, read};
use super::{App, Config, Problems};
use crate::ids::AppName;

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

/// The data folder that a file names, even if the file cannot be loaded: where its agent is reached.
pub fn data_dir(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    validate::data_dir(folder(&absolute), &read(path).ok()?)
}

/// What the file says now, beside what was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    Same,
    /// At least one.
    Changed(Vec<Change>),
    /// It cannot be loaded as it is.
    Wrong(Problems),
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

/// An app that the file does not have (any more), as if it had the least that an app must say.
pub fn unnamed(name: &AppName) -> Option<Arc<App>> {
    let path = Path::new("deploy.toml");
    let text = format!("[apps.{name}]\nrepo = '/nowhere'\nport = 80\n");
    let config = parse(path, Path::new("/"), &text).ok()?;
    config.apps.into_values().next()
}

/// Where relative paths in the file start.
fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}
