//! The client's side of a plain HTTP/1 connection, as hyper sees it: every byte first goes through a
//! strict check of heads and framing, and every silence has a deadline.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits::{Limits, Place};
use crate::proxy::watch::{REST_MS, Watch};
use crate::proxy::wire::framing::Reader;

/// How many bytes of an unwanted upload are read, and for how long, before the connection is reset.
const LINGER_BYTES: usize = 64 << 20;
const LINGER_MS: u64 = 3_000;

/// How many header fields of a request hyper takes without allocating memory for each request.
pub const FIELDS: usize = 100;

/// The most bytes that are read ahead.
pub const EARLY: usize = 1 << 10;

pub struct ClientIo<S> {
    stream: S,
    _place: Place,
    reader: Reader,
    watch: Arc<Watch>,
    limits: Limits,
    /// A head or a chunk was invalid: nothing after it is read.
    refused: bool,
    /// A write is waiting for the client; its deadline is `watch.client`.
    stalled: bool,
    /// Bytes that were read while the connection was at rest or its protocol was not yet known.
    early: Vec<u8>,
    /// The stream (TLS) has its own closing message, which the client waits for.
    says_goodbye: bool,
    /// How many header fields of a request hyper's part of the connection takes.
    fields: usize,
    /// `early` begins with a part of a head that has more.
    withheld: bool,
    /// After the shutdown: how many bytes may still be read and discarded.
    linger: Option<usize>,
}

impl<S> ClientIo<S> {
    /// `early`: the connection's first bytes, if they have been read already. `secure`: whether it is
    /// TLS.
    pub fn new(
        stream: S,
        early: Vec<u8>,
        secure: bool,
        place: Place,
        watch: Arc<Watch>,
        limits: Limits,
    ) -> Self {
        watch.client.set_in(limits.idle_ms);
        watch.between.store(true, Relaxed);
        Self {
            stream,
            _place: place,
            reader: Reader::new(limits.head),
            watch,
            limits,
            refused: false,
            stalled: false,
            early,
            says_goodbye: secure,
            fields: FIELDS,
            withheld: false,
            linger: None,
        }
    }

    /// How many header fields of a request are passed on to hyper.
    pub fn fields(&self) -> usize {
        self.fields
    }

    /// Passes on requests with so many header fields.
    #[cfg(any(test, fuzzing))]
    pub fn set_fields(&mut self, fields: usize) {
        self.fields = fields;
    }

    /// Takes back what hyper has read of the head that is withheld. False: none is.
    pub fn take_back(&mut self, read: &[u8]) -> bool {
        let withheld = std::mem::take(&mut self.withheld);
        if withheld {
            self.early.splice(..0, read.iter().copied());
        }
        withheld
    }

    /// Keeps a head back that has more fields than hyper takes, with everything that came with it.
    fn withhold(&mut self, bytes: &[u8]) {
        self.early.splice(..0, bytes.iter().copied());
        self.fields = self.reader.fields().next_power_of_two();
        self.reader = Reader::new(self.limits.head);
        self.withheld = true;
        self.watch.widens.store(!self.stalled, Relaxed);
    }

    /// The result of a read when the client has sent nothing.
    fn no_byte(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch.register(cx.waker());
        let busy = self.watch.share.load(SeqCst) != 0;
        if busy || !self.reader.in_head() || self.watch.tunnel.load(SeqCst) {
            // Whoever waits for a body enforces its deadline.
            return Poll::Pending;
        }
        if self.watch.client.has_passed() {
            // To hyper this is an end of file, so it closes the connection.
            self.refused = true;
            return Poll::Ready(Ok(()));
        }
        if !self.watch.client.is_set() {
            self.watch.client.set_in(self.limits.idle_ms);
        }
        let idle = self.reader.at_start() && !self.stalled;
        if idle && !self.watch.rest.is_set() && !self.watch.answering.load(SeqCst) {
            self.watch.rest.set_in(REST_MS);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> ClientIo<S> {
    /// Waits for bytes, with which the next read then begins. False: none will come.
    pub fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut room = [const { MaybeUninit::uninit() }; EARLY];
        let mut buf = ReadBuf::uninit(&mut room);
        let read = match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
            Poll::Pending => {
                let end = self.no_byte(cx);
                // It is at rest already, and need not be woken for that.
                self.watch.rest.clear();
                ready!(end)
            }
            Poll::Ready(read) => read,
        };
        self.early.extend_from_slice(buf.filled());
        Poll::Ready(read.is_ok() && !self.early.is_empty())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let rest = self.early.split_off(self.early.len().min(buf.remaining()));
        buf.put_slice(&std::mem::replace(&mut self.early, rest));
        Poll::Ready(Ok(()))
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
        if this.withheld {
            this.watch.register(cx.waker());
            return Poll::Pending;
        }
        let before = buf.filled().len();
        match this.poll_next(cx, buf) {
            Poll::Pending => return this.no_byte(cx),
            Poll::Ready(result) => result?,
        }
        this.watch.rest.clear();
        if this.watch.tunnel.load(SeqCst) {
            return Poll::Ready(Ok(()));
        }
        let (was_at_start, was_in_head) = (this.reader.at_start(), this.reader.in_head());
        let new = &mut buf.filled_mut()[before..];
        let followed = this.reader.follow(new);
        if was_in_head && this.reader.fields() > this.fields && followed.is_ok() {
            this.withhold(new);
            this.watch.register(cx.waker());
            buf.set_filled(before);
            return Poll::Pending;
        }
        if let Some(long) = this.reader.long() {
            let _ = this.watch.long_head.set(long);
        }
        if let Err(at) = followed {
            // Neither a head nor a chunk's line may hold a NUL, so hyper answers 400 and closes the
            // connection.
            new[at] = 0;
            let end = before + at + 1;
            buf.set_filled(end);
            this.refused = true;
        } else if this.reader.is_lost() {
            this.watch.unfollowed.store(true, Relaxed);
        } else if !this.reader.in_head() || this.reader.at_start() {
            this.watch.client.clear();
        } else if was_at_start {
            this.watch.client.set_in(this.limits.head_ms);
        }
        let between = this.reader.at_start();
        this.watch.between.store(between, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> ClientIo<S> {
    /// Limits how long the client may read nothing.
    fn timed<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            if std::mem::take(&mut self.stalled) {
                self.watch.client.clear();
                self.watch.widens.store(self.withheld, Relaxed);
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
        // Neither put to rest nor made anew now: what hyper still has to write would be lost.
        self.watch.rest.clear();
        self.watch.widens.store(false, Relaxed);
        // Bytes of the next request may have cleared the deadline.
        if !std::mem::replace(&mut self.stalled, true) || !self.watch.client.is_set() {
            self.watch.client.set_in(self.limits.write_ms);
        } else if self.watch.client.has_passed() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> ClientIo<S> {
    /// Closing a socket that has unread bytes resets the connection, which can cost the client the
    /// response. So the rest of a request that was answered early is read, up to a limit.
    fn poll_linger(&mut self, cx: &mut Context<'_>) {
        if self.reader.at_start() && !self.refused {
            self.linger = Some(0);
        }
        let mut scratch = [const { MaybeUninit::uninit() }; 8 << 10];
        while let Some(left @ 1..) = self.linger {
            let mut buf = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.linger = Some(left.saturating_sub(buf.filled().len()));
                }
                Poll::Ready(_) => self.linger = Some(0),
                Poll::Pending => {
                    self.watch.register(cx.waker());
                    if !self.watch.client.has_passed() {
                        return;
                    }
                    self.linger = Some(0);
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientIo<S> {
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
        let this = self.get_mut();
        if this.linger.is_none() {
            // With nothing left to read, closing the socket tells the client that nothing more comes.
            if this.says_goodbye || !this.reader.at_start() || this.refused {
                let done = Pin::new(&mut this.stream).poll_shutdown(cx);
                ready!(this.timed(cx, done))?;
            }
            this.linger = Some(LINGER_BYTES);
            this.watch.client.set_in(LINGER_MS);
        }
        this.poll_linger(cx);
        match this.linger {
            Some(0) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }
}
