//! One JSON line for each request, written by a thread of its own: a full disk or a slow one costs
//! lines, never requests.

use std::fs::{File, OpenOptions, rename};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde::Serialize;

/// Lines that may wait to be written.
const WAITING: usize = 16 << 10;
/// A file of this size is set aside as `….1`, up to `….5`.
const FILE: u64 = 64 << 20;
const KEPT: u32 = 5;

/// What a line says. Paths without their query: tokens stand there.
#[derive(Serialize, Debug)]
pub struct Entry {
    pub time: String,
    pub app: String,
    pub release: String,
    pub client: IpAddr,
    pub host: String,
    pub method: String,
    pub path: String,
    pub status: u16,
    /// How it ended, `answered` if all is well.
    pub outcome: &'static str,
    pub took_us: u64,
}

/// The writing end.
pub struct AccessLog {
    lines: SyncSender<Box<Entry>>,
    /// Lines that found no place.
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens the file for appending and starts its thread, which ends with the last sender.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        let (lines, receiver) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write(&path, file, &receiver, &counted))?;
        Ok(Self { lines, lost })
    }

    pub fn write(&self, entry: Box<Entry>) {
        if self.lines.try_send(entry).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn write(path: &Path, file: File, lines: &Receiver<Box<Entry>>, lost: &AtomicU64) {
    let mut size = file.metadata().map_or(0, |m| m.len());
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
            next = lines.try_recv().ok();
        }
        let _ = file.flush();
        match lost.swap(0, Relaxed) {
            0 => {}
            lost => tracing::warn!("{lost} lines of the access log are lost"),
        }
        if size >= FILE {
            match rotate(path) {
                Ok(fresh) => (file, size) = (BufWriter::new(fresh), 0),
                Err(error) => {
                    tracing::warn!("the access log is not rotated: {error}");
                    size = 0;
                }
            }
        }
    }
}

fn rotate(path: &Path) -> io::Result<File> {
    let numbered = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        PathBuf::from(name)
    };
    for n in (1..KEPT).rev() {
        let _ = rename(numbered(n), numbered(n + 1));
    }
    rename(path, numbered(1))?;
    open(path)
}
