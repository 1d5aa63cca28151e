//! The mirror's objects. A missing one means that the mirror is damaged.

use std::io::{self, Read};

use git2::{Blob, ErrorCode, Oid, Repository, Tree};

use super::BuildError;
use crate::source::{Mirror, blob};

// The modes that git uses, apart from that of a plain file.
pub(super) const FOLDER: i32 = 0o040000;
pub(super) const EXECUTABLE: i32 = 0o100755;
pub(super) const LINK: i32 = 0o120000;
pub(super) const SUBMODULE: i32 = 0o160000;

/// A larger file is read in pieces.
const LARGE: u64 = 1 << 20;
/// The largest file that is held in memory where it cannot be read in pieces, in bytes.
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

    pub(super) fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    pub(super) fn tree(&self, id: Oid) -> Result<Tree<'_>, BuildError> {
        self.git.find_tree(id).map_err(|e| self.damaged(&e))
    }

    /// The content of a file of at most `limit` bytes; `path` names it in the error.
    pub(super) fn blob(&self, id: Oid, path: &str, limit: u64) -> Result<Blob<'_>, BuildError> {
        let size = self.size(id)?;
        if size > limit {
            let message = format!("`{path}` has {} KiB", size >> 10);
            return Err(BuildError::TooLarge(message));
        }
        self.git.find_blob(id).map_err(|e| self.damaged(&e))
    }

    /// Passes a file's size and content to `take`, in pieces if it is large. Errors of the content
    /// itself have the kind `InvalidData`.
    pub(super) fn content(
        &self,
        id: Oid,
        path: &str,
        take: impl FnOnce(u64, &mut dyn Read) -> io::Result<()>,
    ) -> Result<io::Result<()>, BuildError> {
        let size = self.size(id)?;
        if size > LARGE
            && let Some(mut content) = blob::open(&self.git, id, size)
        {
            return match take(size, &mut content) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    Err(self.damaged(&git2::Error::from_str(&error.to_string())))
                }
                taken => Ok(taken),
            };
        }
        let blob = self.blob(id, path, MAX_FILE)?;
        Ok(take(size, &mut blob.content()))
    }

    /// A file's size in bytes.
    pub(super) fn size(&self, id: Oid) -> Result<u64, BuildError> {
        let header = self.git.odb().and_then(|odb| odb.read_header(id));
        Ok(header.map_err(|e| self.damaged(&e))?.0 as u64)
    }

    /// The folder at `path` in the tree `root`; an empty path is the root itself.
    pub(super) fn folder(&self, root: &str, path: &str) -> Result<Tree<'_>, BuildError> {
        let root = Oid::from_str(root).map_err(|e| self.damaged(&e))?;
        let tree = self.tree(root)?;
        if path.is_empty() {
            return Ok(tree);
        }
        match tree.get_path(path.as_ref()) {
            Ok(entry) if entry.filemode() == FOLDER => self.tree(entry.id()),
            Err(error) if error.code() != ErrorCode::NotFound => Err(self.damaged(&error)),
            _ => Err(BuildError::NoContext(path.to_owned())),
        }
    }

    pub(super) fn damaged(&self, error: &git2::Error) -> BuildError {
        BuildError::Source(self.mirror.unreadable(error))
    }
}
