//! The mirror's objects. One that must be there and is not means that the mirror is damaged.

use git2::{Blob, ErrorCode, Oid, Repository, Tree};

use super::BuildError;
use crate::source::{Mirror, SourceError};

/// A file in the context is held in memory while it is sent.
const MAX_FILE: u64 = 1 << 30;

pub(super) struct Objects {
    git: Repository,
    mirror: Mirror,
}

impl Objects {
    pub(super) fn open(mirror: &Mirror) -> Result<Self, BuildError> {
        let git = mirror.open()?;
        let mirror = mirror.clone();
        Ok(Self { git, mirror })
    }

    pub(super) fn tree(&self, id: Oid) -> Result<Tree<'_>, BuildError> {
        self.git.find_tree(id).map_err(|e| self.damaged(&e))
    }

    /// A file's content, once its size is known to be bearable; `path` names it in the error.
    pub(super) fn blob(&self, id: Oid, path: &str, limit: u64) -> Result<Blob<'_>, BuildError> {
        self.size(id, path, limit)?;
        self.git.find_blob(id).map_err(|e| self.damaged(&e))
    }

    /// A file's size in bytes.
    pub(super) fn size(&self, id: Oid, path: &str, limit: u64) -> Result<u64, BuildError> {
        let header = self.git.odb().and_then(|odb| odb.read_header(id));
        let size = header.map_err(|e| self.damaged(&e))?.0 as u64;
        if size > limit.min(MAX_FILE) {
            let message = format!("`{path}` has {} KiB", size >> 10);
            return Err(BuildError::TooLarge(message));
        }
        Ok(size)
    }

    /// The folder at `path` in the tree `root`, an empty path for the root itself.
    pub(super) fn folder(&self, root: &str, path: &str) -> Result<Tree<'_>, BuildError> {
        let root = Oid::from_str(root).map_err(|e| self.damaged(&e))?;
        let tree = self.tree(root)?;
        if path.is_empty() {
            return Ok(tree);
        }
        match tree.get_path(path.as_ref()) {
            Ok(entry) if entry.filemode() == super::walk::FOLDER => self.tree(entry.id()),
            Err(error) if error.code() != ErrorCode::NotFound => Err(self.damaged(&error)),
            _ => Err(BuildError::NoContext(path.to_owned())),
        }
    }

    /// The mirror goes; the next fetch makes it again.
    fn damaged(&self, error: &git2::Error) -> BuildError {
        self.mirror.discard();
        BuildError::Source(SourceError::Damaged {
            repo: self.mirror.shown(),
            why: error.message().to_owned(),
        })
    }
}
