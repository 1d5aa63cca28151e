//! An app's own repository, by which its submodules' are judged.

use std::path::PathBuf;

use super::lock::{MORE, beside};
use crate::config::{Repo, Source};

/// What the mirrors of an app's submodules know of the app.
#[derive(Debug, Clone)]
pub(super) struct Own {
    folder: PathBuf,
    pub(super) repo: Repo,
    pub(super) access: Source,
}

impl Own {
    /// What is kept of an app besides its mirror.
    pub(super) fn more(&self) -> PathBuf {
        beside(&self.folder, MORE)
    }

    pub(super) fn of(folder: PathBuf, repo: Repo, access: Source) -> Self {
        Self {
            folder,
            repo,
            access,
        }
    }
}
