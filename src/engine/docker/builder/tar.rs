//! Sends all files at once: written by a blocking thread, read by the request's body.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::engine::files::Files;

/// In bytes.
const CHUNK: usize = 64 << 10;
/// Chunks buffered between the two, which bounds the memory that a slow engine can cost.
const CHUNKS: usize = 8;

/// What the tar calls the Dockerfile where it is not among the files.
pub(super) const DOCKERFILE: &str = ".cutover.Dockerfile";

/// Starts sending. `dockerfile`: a name under which the tar has the Dockerfile as well.
pub(super) fn send(
    files: Arc<Mutex<dyn Files>>,
    dockerfile: Option<&'static str>,
) -> (
    impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    JoinHandle<()>,
) {
    let (chunks, receiver) = mpsc::channel(CHUNKS);
    let task = tokio::task::spawn_blocking(move || {
        let mut sink = Sink {
            chunks: chunks.clone(),
            chunk: BytesMut::with_capacity(CHUNK),
        };
        let sent = files
            .lock()
            .tar(dockerfile, &mut sink)
            .and_then(|()| sink.flush());
        if sent.is_err() {
            // Without this, the engine would take a truncated tar for a complete one.
            let _ = chunks.blocking_send(Err(io::Error::other("failed to read the context")));
        }
    });
    let body = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    (body, task)
}

struct Sink {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    chunk: BytesMut,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let chunk = self.chunk.split().freeze();
        self.chunk.reserve(CHUNK);
        if chunk.is_empty() {
            return Ok(());
        }
        (self.chunks.blocking_send(Ok(chunk))).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
