//! A connection whose other side has already sent everything.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// More polls than one connection can need: it hangs.
const MAX_POLLS: usize = 100_000;

pub struct Pipe<'a> {
    input: &'a [u8],
    step: usize,
    /// Whether the other side sends nothing until it has received something.
    pub quiet: bool,
    /// How often the end is still withheld: hyper drops a request whose client has left.
    patience: u32,
}

impl<'a> Pipe<'a> {
    /// At most `step` bytes are read at a time.
    pub fn new(input: &'a [u8], step: usize) -> Self {
        Self {
            input,
            step: step.max(1),
            quiet: false,
            patience: 32,
        }
    }
}

impl AsyncRead for Pipe<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.quiet {
            return Poll::Pending;
        }
        if self.input.is_empty() && self.patience > 0 {
            self.patience -= 1;
            return Poll::Pending;
        }
        let n = self.step.min(buf.remaining()).min(self.input.len());
        let (part, rest) = self.input.split_at(n);
        buf.put_slice(part);
        self.input = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.quiet = false;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs `task` to its end. It may wait only for itself.
pub fn finish<T>(task: impl Future<Output = T>) -> T {
    let mut task = pin!(task);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..MAX_POLLS {
        if let Poll::Ready(done) = task.as_mut().poll(&mut cx) {
            return done;
        }
    }
    panic!("the connection hangs");
}
