//! What a client sends is taken in whole before an app is troubled with it: a little in memory, more in a
//! file that has no name, all of it bounded. What exceeds that is passed on as it comes.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::Frame;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio_util::io::poll_read_buf;

/// How much all requests together have in memory and on disk, in bytes.
const MEMORY: u64 = 64 << 20;
const DISK: u64 = 1 << 30;
/// How much is read from a file at a time, in bytes.
const PART: usize = 64 << 10;

static IN_MEMORY: AtomicU64 = AtomicU64::new(0);
static ON_DISK: AtomicU64 = AtomicU64::new(0);

/// The beginning of a body, or all of it.
#[derive(Default)]
pub struct Buffer {
    memory: VecDeque<Bytes>,
    in_memory: u64,
    file: Option<File>,
    /// How much of the file is still to be read.
    on_disk: u64,
    /// How much of `DISK` it has.
    reserved: u64,
    last: Option<Frame<Bytes>>,
    /// Nothing follows what is kept.
    is_whole: bool,
}

impl Buffer {
    /// How long the body is, if all of it is here and nothing but data.
    pub fn length(&self) -> Option<u64> {
        let whole = self.is_whole && self.last.is_none();
        whole.then_some(self.in_memory + self.on_disk)
    }

    pub fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.on_disk == 0 && self.last.is_none()
    }

    /// Nothing follows what is kept, but for these trailers.
    pub fn end(&mut self, trailers: Option<Frame<Bytes>>) {
        self.last = trailers;
        self.is_whole = true;
    }

    /// Goes back to the beginning, to be read.
    pub async fn rewind(&mut self) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.seek(io::SeekFrom::Start(0)).await.map(drop),
            None => Ok(()),
        }
    }

    /// The next part of what is kept. `None`: there is no more.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(data) = self.memory.pop_front() {
            self.in_memory -= data.len() as u64;
            IN_MEMORY.fetch_sub(data.len() as u64, Relaxed);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let (Some(file), 1..) = (&mut self.file, self.on_disk) {
            // A write that failed may have left more than counts.
            let most = PART.min(usize::try_from(self.on_disk).unwrap_or(PART));
            let mut part = BytesMut::with_capacity(most).limit(most);
            let read = ready!(poll_read_buf(Pin::new(file), cx, &mut part));
            return Poll::Ready(Some(match read {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.on_disk = self.on_disk.saturating_sub(read as u64);
                    Ok(Frame::data(part.into_inner().freeze()))
                }
                Err(error) => Err(error),
            }));
        }
        Poll::Ready(self.last.take().map(Ok))
    }

    /// Keeps a part. False: there is no room for more.
    pub async fn keep(&mut self, data: Bytes, most: u64, folder: &Path) -> bool {
        let size = data.len() as u64;
        if self.file.is_none() && self.in_memory + size <= most {
            let fits = IN_MEMORY.fetch_add(size, Relaxed) + size <= MEMORY;
            self.in_memory += size;
            self.memory.push_back(data);
            return fits;
        }
        let fits = ON_DISK.fetch_add(size, Relaxed) + size <= DISK;
        self.reserved += size;
        let written = match fits {
            true => self.write(&data, folder).await,
            false => Err(io::ErrorKind::StorageFull.into()),
        };
        match written {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!("a request's body is not kept on disk: {error}");
                // It comes after what is in the file.
                self.last = Some(Frame::data(data));
                false
            }
        }
    }

    async fn write(&mut self, data: &[u8], folder: &Path) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let folder = folder.to_owned();
                let made = tokio::task::spawn_blocking(move || nameless(&folder));
                let made = made.await.map_err(io::Error::other)??;
                self.file.insert(File::from_std(made))
            }
        };
        file.write_all(data).await?;
        file.flush().await?;
        self.on_disk += data.len() as u64;
        Ok(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        IN_MEMORY.fetch_sub(self.in_memory, Relaxed);
        ON_DISK.fetch_sub(self.reserved, Relaxed);
    }
}

/// A file that is gone when it is closed. Blocks.
fn nameless(folder: &Path) -> io::Result<std::fs::File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        // Not every file system has such files.
        Err(_) => named(folder),
    }
}

fn named(folder: &Path) -> io::Result<std::fs::File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Relaxed);
    let path = folder.join(format!("upload.{}-{number}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}
