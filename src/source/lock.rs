//! One writer per mirror, across threads and processes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::SourceError;

/// How long a mirror that goes is waited for: whoever fetches into it has been told to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// The folder beside a mirror with what else is fetched for its app: submodules and files of Git LFS.
pub(super) const MORE: &str = ".d";

/// Held while a mirror changes; the kernel releases it when the process dies.
pub(super) struct Lock(#[allow(dead_code)] File);

/// Locks the file next to the mirror's folder, waiting until `deadline` at most. Blocks.
pub(super) fn take(
    mirror: &Path,
    cancel: &CancellationToken,
    deadline: Instant,
) -> Result<Lock, SourceError> {
    let path = beside(mirror, ".lock");
    let disk = |cause| SourceError::Disk {
        path: path.display().to_string(),
        cause,
    };
    loop {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(disk)?;
        match file.try_lock() {
            // It may have been removed, with the mirror, since it was opened.
            Ok(()) if is_at(&file, &path) => return Ok(Lock(file)),
            Ok(()) => continue,
            Err(TryLockError::Error(cause)) => return Err(disk(cause)),
            Err(TryLockError::WouldBlock) if cancel.is_cancelled() => {
                return Err(SourceError::Cancelled);
            }
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(SourceError::TimedOut {
                    repo: mirror.display().to_string(),
                });
            }
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(file), Ok(path)) = (file.metadata(), path.metadata()) else {
        return false;
    };
    (file.dev(), file.ino()) == (path.dev(), path.ino())
}

/// Removes a mirror with the files beside it, once nobody uses it any more. Blocks.
pub fn remove_mirror(mirror: &Path) -> Result<(), SourceError> {
    let _lock = match mirror.parent().is_some_and(Path::exists) {
        true => take(mirror, &CancellationToken::new(), Instant::now() + PATIENCE)?,
        false => return Ok(()),
    };
    let disk = |cause| SourceError::Disk {
        path: mirror.display().to_string(),
        cause,
    };
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(disk),
    };
    gone(fs::remove_dir_all(mirror))?;
    gone(fs::remove_dir_all(beside(mirror, MORE)))?;
    // The lock last, while it is held.
    [".host_key", ".lock"]
        .into_iter()
        .try_for_each(|suffix| gone(fs::remove_file(beside(mirror, suffix))))
}

/// Moves a mirror to another name. Blocks.
pub fn rename_mirror(from: &Path, to: &Path) -> Result<(), SourceError> {
    for suffix in ["", MORE] {
        let (old, new) = (beside(from, suffix), beside(to, suffix));
        if old.exists() && !new.exists() {
            let _lock = take(from, &CancellationToken::new(), Instant::now() + PATIENCE)?;
            let moved = fs::rename(&old, &new);
            moved.map_err(|cause| SourceError::Disk {
                path: old.display().to_string(),
                cause,
            })?;
        }
    }
    remove_mirror(from)
}

/// Appends a suffix to a mirror's path: `…/hello.git` and `.lock` give `…/hello.git.lock`.
pub(super) fn beside(mirror: &Path, suffix: &str) -> PathBuf {
    let mut name = mirror.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_a_mirror_and_who_waited_for_it_locks_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = folder.path().join("hello.git");
        let take = || {
            let soon = Instant::now() + PATIENCE;
            take(&mirror, &CancellationToken::new(), soon).unwrap()
        };
        fs::create_dir(&mirror).unwrap();
        fs::write(beside(&mirror, ".host_key"), "a key").unwrap();
        fs::create_dir(beside(&mirror, MORE)).unwrap();
        let (held, opened) = (take(), File::open(beside(&mirror, ".lock")).unwrap());
        drop(held);
        remove_mirror(&mirror).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        remove_mirror(&mirror).unwrap();
        assert!(!is_at(&opened, &beside(&mirror, ".lock")));
        let held = take();
        assert!(!is_at(&opened, &beside(&mirror, ".lock")));

        let other = folder.path().join("greeter.git");
        drop(held);
        fs::create_dir(&mirror).unwrap();
        rename_mirror(&mirror, &other).unwrap();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(other.is_dir());
    }
}
