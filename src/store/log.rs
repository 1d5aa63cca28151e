//! The log of one deployment: a text file whose length can be watched, so that readers can follow it
//! without polling.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::mask::Mask;
use crate::printable::printable;

/// The most bytes that a log may take: a build that prints without end must not fill the disk.
/// A log that would exceed it loses its middle, between the first [`HEAD`] bytes and the last [`TAIL`].
const CAP: u64 = 16 << 20;
const HEAD: u64 = 8 << 20;
const TAIL: u64 = 4 << 20;
const CUT: &[u8] = b"(lines are left out here: the log reached 16 MiB)\n";

/// How many bytes closer to the beginning each cut moves the tail, give or take a line, since whole
/// lines are cut.
pub const CUT_OUT: u64 = CAP - HEAD - TAIL;

/// The most bytes that all logs together may take; the oldest are removed first.
const ALL: u64 = 1 << 30;

/// Removes the oldest logs in `folder` until the rest take at most 1 GiB; returns how many it removed.
/// Log names begin with deployment ids, which sort by time; the logs being written are the newest.
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

/// The writer of a log. Clones write to the same log.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    file: Mutex<File>,
    length: watch::Sender<u64>,
    mask: Mutex<Arc<Mask>>,
}

impl Log {
    /// Opens the log at `path` for appending; creates it if necessary.
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
            mask: Mutex::default(),
        })))
    }

    /// From now on, what is secret is hidden in every line.
    pub fn mask(&self, mask: Arc<Mask>) {
        *self.0.mask.lock() = mask;
    }

    /// Lines that are kept elsewhere too, as this log shows them.
    pub fn masked(&self, lines: Vec<String>) -> Vec<String> {
        let mask = self.0.mask.lock().clone();
        mask.hide_all(lines)
    }

    /// Adds a line, or several if the text has several, [`printable`]: people read the log in a
    /// terminal. A full disk loses the line, never the
    /// deployment.
    pub fn line(&self, text: &str) {
        let mask = self.0.mask.lock().clone();
        let mut bytes = mask.hide(printable(text.trim_end()).into_owned());
        bytes.push('\n');
        let mut file = self.0.file.lock();
        let mut length = *self.0.length.borrow();
        for bytes in pieces(bytes.as_bytes()) {
            if length + bytes.len() as u64 > CAP {
                // If it cannot be cut, nothing is added: the cap holds.
                let Ok(cut) = cut(&mut file, length) else {
                    break;
                };
                length = cut;
            }
            if file.write_all(bytes).is_ok() {
                length += bytes.len() as u64;
            }
        }
        // On a full disk the last write may be partial, and only the file tells its length.
        let length = file.metadata().map_or(length, |file| file.len());
        self.0.length.send_replace(length);
    }

    /// The log's length in bytes, which changes with every line and falls when the log is cut. The
    /// channel closes when the last writer is dropped.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.length.subscribe()
    }

    /// The last `lines` lines, or fewer if together they exceed 256 KiB; none if reading fails.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let length = *self.0.length.borrow();
        let from = length.saturating_sub(256 << 10);
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

/// Splits a text, which may be longer than a whole log.
fn pieces(bytes: &[u8]) -> std::slice::Chunks<'_, u8> {
    bytes.chunks(TAIL as usize)
}

/// Cuts whole lines out of the middle of a log of `length` bytes; returns its new length.
fn cut(file: &mut File, length: u64) -> io::Result<u64> {
    let head_end = line_end(file, HEAD)?;
    let tail_begin = line_end(file, length.saturating_sub(TAIL))?;
    let mut tail = vec![0; (length - tail_begin) as usize];
    file.read_exact_at(&mut tail, tail_begin)?;
    file.set_len(head_end)?;
    // An earlier cut left its note at the same place, just after the head.
    file.write_all(CUT)?;
    file.write_all(&tail)?;
    Ok(head_end + (CUT.len() + tail.len()) as u64)
}

/// The end of the line that contains `offset`.
fn line_end(file: &File, offset: u64) -> io::Result<u64> {
    let mut piece = vec![0; 64 << 10];
    let read = file.read_at(&mut piece, offset)?;
    let end = piece[..read].iter().position(|byte| *byte == b'\n');
    // A line that is longer than this is cut in two.
    Ok(offset + end.map_or(0, |end| end as u64 + 1))
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

    #[test]
    fn a_log_without_end_keeps_its_head_and_its_tail() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Log::open(&path).unwrap();
        log.line("the first line");
        let filler = "x".repeat(999);
        for _ in 0..40_000 {
            log.line(&filler);
        }
        log.line("the last line");
        assert_eq!(log.tail(1), ["the last line"]);
        drop(log);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("the first line\nx"));
        assert!(text.ends_with("x\nthe last line\n"));
        assert!(text.len() as u64 <= CAP, "{}", text.len());
        let cut = text.lines().filter(|line| line.starts_with('(')).count();
        assert_eq!(cut, 1);
        // Only whole lines are left.
        let whole =
            |line: &str| line.len() == 999 || line.starts_with('(') || line.starts_with("the");
        assert!(text.lines().all(whole));
    }
}
