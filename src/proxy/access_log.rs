//! One JSON line for each request, written by a separate thread: a full or slow disk costs lines, never
//! requests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::log_file::{open, set_aside};
use crate::log_limit::limited;

/// The most lines that may wait to be written.
const WAITING: usize = 16 << 10;
/// The size at which a file is set aside, in bytes.
const FILE: u64 = 64 << 20;

/// How often to try again to open a file that could not be opened.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// The content of a line. Paths are logged without their query, which may contain tokens.
#[derive(Serialize, Debug)]
pub struct Entry {
    pub time: String,
    /// The X-Request-ID that the app received.
    pub request_id: String,
    pub app: String,
    pub release: String,
    pub client: IpAddr,
    pub host: String,
    pub method: String,
    pub path: String,
    pub status: u16,
    /// How the request ended; `answered` if all went well.
    pub outcome: &'static str,
    pub took_us: u64,
    /// The header fields that the app's log is to have, by their names in lower case.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// The writing end.
pub struct AccessLog {
    lines: SyncSender<Box<Entry>>,
    /// The number of lines that were dropped because the queue was full or the write failed.
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Starts the thread, which opens the file for appending and ends when the last sender is dropped.
    /// Lines are lost until the file can be opened.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let (lines, receiver) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || {
                if let Some(file) = opened(&path, &receiver, &counted) {
                    write(&path, file, &receiver, &counted, FILE);
                }
            })?;
        Ok(Self { lines, lost })
    }

    pub fn write(&self, entry: Box<Entry>) {
        if self.lines.try_send(entry).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

/// Opens the file, trying again until that is possible. `None` if the proxy ends before.
fn opened(path: &Path, lines: &Receiver<Box<Entry>>, lost: &AtomicU64) -> Option<File> {
    let mut said = false;
    loop {
        let error = match open(path) {
            Ok(file) => return Some(file),
            Err(error) => error,
        };
        if !said {
            let path = path.display();
            tracing::error!(
                "failed to open the access log `{path}`: {error}; serving without it, and trying again"
            );
            said = true;
        }
        let again = Instant::now() + OPEN_AGAIN;
        loop {
            match lines.recv_timeout(again.saturating_duration_since(Instant::now())) {
                Ok(_) => lost.fetch_add(1, Relaxed),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return None,
            };
        }
    }
}

fn write(path: &Path, file: File, lines: &Receiver<Box<Entry>>, lost: &AtomicU64, largest: u64) {
    let metadata = file.metadata();
    // Only a file can be set aside: `/dev/stdout` must stay where it is.
    let rotated = metadata.as_ref().is_ok_and(|m| m.is_file()) && !path.is_symlink();
    let mut size = metadata.map_or(0, |m| m.len());
    let mut file = BufWriter::new(file);
    while let Ok(first) = lines.recv() {
        let mut next = Some(first);
        while let Some(entry) = next {
            if let Ok(mut line) = serde_json::to_vec(&entry) {
                line.push(b'\n');
                size += line.len() as u64;
                if file.write_all(&line).is_err() {
                    lost.fetch_add(1, Relaxed);
                }
            }
            // Even if there is always a next line, the file is set aside in time.
            next = match rotated && size >= largest {
                true => None,
                false => lines.try_recv().ok(),
            };
        }
        let _ = file.flush();
        match lost.swap(0, Relaxed) {
            0 => {}
            lost => limited!(
                warn,
                "lost lines of the access log",
                "lines of the access log that were lost: {lost}"
            ),
        }
        if rotated && size >= largest {
            match set_aside(path) {
                Ok(fresh) => (file, size) = (BufWriter::new(fresh), 0),
                Err(error) => {
                    tracing::warn!("failed to rotate the access log: {error}");
                    size = 0;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: usize) -> Box<Entry> {
        Box::new(Entry {
            time: String::new(),
            request_id: String::new(),
            app: "a".into(),
            release: "r".into(),
            client: [127, 0, 0, 1].into(),
            host: "a.test".into(),
            method: "GET".into(),
            path: format!("/{number}"),
            status: 200,
            outcome: "answered",
            took_us: 1,
            headers: BTreeMap::new(),
        })
    }

    /// Writes `count` lines, `burst` at a time, into files of `largest` bytes. Returns how many were
    /// lost.
    fn write_to(path: &Path, count: usize, burst: usize, largest: u64) -> u64 {
        let (sender, receiver) = sync_channel(burst);
        let (file, lost) = (open(path).unwrap(), AtomicU64::new(0));
        let counted = &lost;
        std::thread::scope(|scope| {
            scope.spawn(move || write(path, file, &receiver, counted, largest));
            for number in 0..count {
                sender.send(entry(number)).unwrap();
            }
            drop(sender);
        });
        lost.into_inner()
    }

    #[test]
    fn files_are_set_aside_and_no_line_is_lost_or_torn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        assert_eq!(write_to(&path, 300, 10, 10_000), 0);
        let mut expected = 300;
        let mut files = 0;
        for name in ["access.log", "access.log.1", "access.log.2", "access.log.3"]
            .into_iter()
            .chain(["access.log.4", "access.log.5", "access.log.6"])
        {
            let Ok(text) = std::fs::read_to_string(folder.path().join(name)) else {
                continue;
            };
            files += 1;
            // At most one line more than the limit.
            assert!(text.len() < 10_000 + 300, "{name}: {}", text.len());
            for line in text.lines().rev() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                expected -= 1;
                assert_eq!(line["path"], format!("/{expected}"), "{name}");
            }
        }
        assert!((3..=6).contains(&files), "{files}");
        assert_eq!(expected, 0, "all of them, in their order");
    }

    #[test]
    fn only_the_newest_files_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        assert_eq!(write_to(&path, 2_000, 5, 2_000), 0);
        let names = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 1 + 5);
    }

    #[test]
    fn what_is_no_file_is_never_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stdout");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        write_to(&path, 200, 5, 1_000);
        assert!(path.is_symlink());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
