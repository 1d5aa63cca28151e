//! One writer per mirror, across threads and processes.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::SourceError;

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
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(disk)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock(file)),
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

/// Appends a suffix to a mirror's path: `…/hello.git` and `.lock` give `…/hello.git.lock`.
pub(super) fn beside(mirror: &Path, suffix: &str) -> PathBuf {
    let mut name = mirror.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
