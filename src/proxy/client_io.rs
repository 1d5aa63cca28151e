//! The client's side of a plain HTTP/1 connection, as hyper sees it: every byte goes through a
//! strict reading of heads and framing first, and every silence has a deadline.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::Reader;
use super::watch::Watch;

/// How long a client may take, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte of a head to its last.
    pub head_ms: u64,
    /// Between two requests, and before the first.
    pub idle_ms: u64,
    /// To take in something of an answer.
    pub write_ms: u64,
}

pub struct ClientIo<S> {
    stream: S,
    reader: Reader,
    watch: Arc<Watch>,
    limits: Limits,
    /// Something was refused: nothing that follows is read.
    refused: bool,
    /// A write is waiting for the client; its deadline stands in `watch.client`.
    stalled: bool,
}

impl<S> ClientIo<S> {
    pub fn new(stream: S, watch: Arc<Watch>, limits: Limits) -> Self {
        watch.client.set_in(limits.idle_ms);
        Self {
            stream,
            reader: Reader::default(),
            watch,
            limits,
            refused: false,
            stalled: false,
        }
    }

    /// What a wait for the client's next byte comes to.
    fn no_byte(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch.register(cx.waker());
        let busy = self.watch.route.load(SeqCst) != 0;
        if busy || !self.reader.in_head() || self.watch.tunnel.load(SeqCst) {
            // Bodies are timed by those who wait for them.
            return Poll::Pending;
        }
        if self.watch.client.has_passed() {
            // An end of file: hyper closes.
            self.refused = true;
            return Poll::Ready(Ok(()));
        }
        if !self.watch.client.is_set() {
            self.watch.client.set_in(self.limits.idle_ms);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refused {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Pending => return this.no_byte(cx),
            Poll::Ready(result) => result?,
        }
        if this.watch.tunnel.load(SeqCst) {
            return Poll::Ready(Ok(()));
        }
        let was_at_start = this.reader.at_start();
        let new = &mut buf.filled_mut()[before..];
        if let Err(at) = this.reader.follow(new) {
            // No head and no chunk may hold a NUL: hyper answers 400 and closes.
            new[at] = 0;
            let end = before + at + 1;
            buf.set_filled(end);
            this.refused = true;
        } else if !this.reader.in_head() || this.reader.at_start() {
            this.watch.client.clear();
        } else if was_at_start {
            this.watch.client.set_in(this.limits.head_ms);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> ClientIo<S> {
    /// Times how long the client takes nothing.
    fn timed<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            if std::mem::take(&mut self.stalled) {
                self.watch.client.clear();
            }
            return done;
        }
        if self.watch.tunnel.load(SeqCst) {
            return Poll::Pending;
        }
        self.watch.register(cx.waker());
        if self.watch.killed.load(SeqCst) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if !std::mem::replace(&mut self.stalled, true) {
            self.watch.client.set_in(self.limits.write_ms);
        } else if self.watch.client.has_passed() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.timed(cx, done)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.timed(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.stream).poll_flush(cx);
        this.timed(cx, done)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
