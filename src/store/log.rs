//! One deployment's log: a text file that grows, and a number that says how far, so that a reader
//! follows without polling.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// A log is cut at this many bytes: a build that prints for ever must not fill the disk.
const CAP: u64 = 16 << 20;

/// What all logs together may take, in bytes; the oldest go first.
const ALL: u64 = 1 << 30;

/// Removes the oldest logs in `folder` until the rest takes at most a GiB; says how many. Their
/// names begin with deployment ids, which sort by time, and those that are being written are newest.
pub fn remove_oldest(folder: &Path) -> io::Result<usize> {
    remove_beyond(folder, ALL)
}

fn remove_beyond(folder: &Path, limit: u64) -> io::Result<usize> {
    let entries = std::fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let mut paths: Vec<_> = entries.iter().map(std::fs::DirEntry::path).collect();
    paths.sort_unstable_by(|a, b| b.cmp(a));
    let (mut total, mut removed) = (0, 0);
    for path in paths {
        total += std::fs::metadata(&path)?.len();
        if total > limit {
            std::fs::remove_file(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The writing end. Clones write to the same log.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    file: Mutex<File>,
    length: watch::Sender<u64>,
}

impl Log {
    /// Opens the log at `path` for appending, making it where there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)?;
        let length = watch::Sender::new(file.metadata()?.len());
        Ok(Self(Arc::new(Inner {
            file: Mutex::new(file),
            length,
        })))
    }

    /// Adds one line; text with several lines is added as several. Control characters other than tab
    /// are replaced, since people read this in a terminal. A full disk loses the line, never the
    /// deployment.
    pub fn line(&self, text: &str) {
        let mut file = self.0.file.lock();
        let length = *self.0.length.borrow();
        if length >= CAP {
            return;
        }
        let mut bytes: String = text
            .trim_end()
            .split('\n')
            .flat_map(|line| [line.trim_end_matches('\r'), "\n"])
            .flat_map(str::chars)
            .map(|c| {
                if c.is_control() && c != '\n' && c != '\t' {
                    '\u{fffd}'
                } else {
                    c
                }
            })
            .collect();
        if length + bytes.len() as u64 >= CAP {
            bytes = "(the log is cut here: it reached 16 MiB)\n".into();
            let _ = file.write_all(bytes.as_bytes());
            self.0.length.send_replace(CAP);
            return;
        }
        if file.write_all(bytes.as_bytes()).is_ok() {
            self.0.length.send_replace(length + bytes.len() as u64);
        }
    }

    /// The log's length, which changes with every line; closed when the last writer is dropped.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.length.subscribe()
    }

    /// The last `lines` lines; fewer where they are longer than 64 KiB together.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let length = *self.0.length.borrow();
        let from = length.saturating_sub(64 << 10);
        let mut bytes = vec![0; (length - from) as usize];
        let file = self.0.file.lock();
        if file.read_exact_at(&mut bytes, from).is_err() {
            return vec![];
        }
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<_> = text.lines().collect();
        all.iter()
            .skip(all.len().saturating_sub(lines))
            .map(|line| (*line).to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DeploymentId;

    #[test]
    fn the_oldest_logs_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut names: Vec<_> = (0..4)
            .map(|_| format!("{}.log", DeploymentId::new()))
            .collect();
        for name in &names {
            std::fs::write(folder.path().join(name), [b'x'; 100]).unwrap();
        }
        assert_eq!(remove_beyond(folder.path(), 250).unwrap(), 2);
        let mut left: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort_unstable();
        names.sort_unstable();
        assert_eq!(left, names[2..]);
        assert_eq!(remove_beyond(folder.path(), 250).unwrap(), 0);
    }
}
