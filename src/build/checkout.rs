//! A commit's files on disk, for a builder that is a program; and a folder of what it has made.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid};

use super::BuildError;
use super::walk::{Kind, List, Place};
use crate::engine::files::{FileKind, Files};

/// A folder that is removed when nobody needs it any more.
pub(super) struct Work(PathBuf);

impl Work {
    /// An empty one at this path, where an agent that was killed may have left something. Blocks.
    pub(super) fn at(path: PathBuf) -> io::Result<Self> {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(&path)?,
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        let remove = move || {
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::debug!(%error, path = %path.display(), "left behind until the next build");
            }
        };
        // It may be large.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// Writes everything into an empty folder. Each name is new there: whoever made the commit by hand cannot
/// have a file written through a link. Blocks.
pub(super) fn write(files: &mut dyn Files, folder: &Path) -> Result<(), BuildError> {
    let entries = files.entries();
    for (place, entry) in entries.iter().enumerate() {
        let path = folder.join(OsStr::from_bytes(&entry.path));
        let wrong = |error: io::Error| BuildError::Checkout {
            path: String::from_utf8_lossy(&entry.path).into_owned(),
            why: error.to_string(),
        };
        match &entry.kind {
            FileKind::Folder => fs::create_dir(&path).map_err(wrong)?,
            FileKind::Link(target) => {
                std::os::unix::fs::symlink(OsStr::from_bytes(target), &path).map_err(wrong)?;
            }
            FileKind::File { executable, .. } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                let file = File::options()
                    .write(true)
                    .create_new(true)
                    .mode(mode)
                    .open(&path);
                let mut file = io::BufWriter::new(file.map_err(wrong)?);
                let written = files.content(place, &mut file);
                written.and_then(|()| file.flush()).map_err(wrong)?;
            }
        }
    }
    Ok(())
}

/// Lists what is in a folder, below `at`. Links are listed, not followed. Blocks.
pub(super) fn list(folder: &Path, at: &str) -> Result<List, BuildError> {
    let wrong = |path: &Path, error: io::Error| BuildError::Checkout {
        path: path.display().to_string(),
        why: error.to_string(),
    };
    let mut list = List::default();
    let mut folders = vec![(folder.to_owned(), at.as_bytes().to_vec())];
    while let Some((folder, path)) = folders.pop() {
        list.push(path.clone(), Kind::Folder)?;
        let entries = fs::read_dir(&folder).and_then(|all| all.collect::<io::Result<Vec<_>>>());
        for entry in entries.map_err(|error| wrong(&folder, error))? {
            let file = entry.path();
            let wrong = |error| wrong(&file, error);
            let path = [path.as_slice(), b"/", entry.file_name().as_bytes()].concat();
            let about = entry.metadata().map_err(wrong)?;
            if about.is_dir() {
                folders.push((file, path));
            } else if about.is_symlink() {
                let target = fs::read_link(&file).map_err(wrong)?;
                list.push(
                    path,
                    Kind::Link(target.into_os_string().into_encoded_bytes()),
                )?;
            } else if about.is_file() {
                list.grow(about.len())?;
                let id = Oid::hash_file(ObjectType::Blob, &file);
                let kind = Kind::File {
                    id: id.map_err(|error| wrong(io::Error::other(error.to_string())))?,
                    size: about.len(),
                    executable: about.mode() & 0o111 != 0,
                    place: Place::Stored(file),
                    time: 0,
                };
                list.push(path, kind)?;
            }
        }
    }
    Ok(list)
}
