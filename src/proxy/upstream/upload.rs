//! A request's body as it arrives from the client, limited in size and time.

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;

use super::buffer::Buffer;
use crate::proxy::watch::Watch;

/// Why the rest of a request's body cannot be sent.
#[derive(Debug, Error)]
pub enum UploadError {
    #[error("the request body is larger than allowed")]
    TooLarge,
    #[error("the client sent nothing for too long")]
    ClientIdle,
    #[error("the request is being sent again")]
    Again,
    #[error("failed to read the request body: {0}")]
    Client(#[source] hyper::Error),
    #[error("failed to read what was kept of the request body: {0}")]
    Buffer(#[source] io::Error),
}

/// A body on its way from the client to the app.
pub struct Upload {
    pub incoming: Incoming,
    pub watch: Arc<Watch>,
    /// How many bytes may still come.
    pub left: u64,
    /// How long the client may be silent, in milliseconds; 0: no limit.
    pub idle_ms: u64,
    /// How long the app may take to respond once it has the body, in milliseconds.
    pub first_byte_ms: u64,
    /// What has been taken in before the app was asked.
    pub buffer: Option<Box<Buffer>>,
}

impl Upload {
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        if let Some(buffer) = &mut self.buffer {
            if let Some(frame) = ready!(buffer.poll_frame(cx)) {
                self.watch.upstream.set_in(self.first_byte_ms);
                return Poll::Ready(Some(frame.map_err(UploadError::Buffer)));
            }
            self.buffer = None;
        }
        self.poll_incoming(cx)
    }

    /// Takes the body in as it comes, until all of it is here, no more fits or `ends` says so; `most` of it stays
    /// in memory.
    pub async fn take_in(
        &mut self,
        most: u64,
        folder: &Path,
        ends: impl Fn() -> bool,
    ) -> Result<(), UploadError> {
        let mut buffer = Buffer::default();
        loop {
            let next = poll_fn(|cx| {
                self.watch.register(cx.waker());
                match ends() {
                    true => Poll::Ready(None),
                    false => self.poll_incoming(cx).map(Some),
                }
            });
            let Some(next) = next.await else { break };
            let Some(frame) = next.transpose()? else {
                buffer.end(None);
                break;
            };
            match frame.into_data() {
                Ok(data) => {
                    if !buffer.keep(data, most, folder).await {
                        break;
                    }
                }
                Err(trailers) => {
                    buffer.end(Some(trailers));
                    break;
                }
            }
        }
        self.watch.upstream.clear();
        buffer.rewind().await.map_err(UploadError::Buffer)?;
        self.buffer = Some(Box::new(buffer));
        Ok(())
    }

    pub fn is_end_stream(&self) -> bool {
        self.buffer.as_ref().is_none_or(|buffer| buffer.is_empty()) && self.incoming.is_end_stream()
    }

    pub fn size_hint(&self) -> SizeHint {
        match &self.buffer {
            None => self.incoming.size_hint(),
            Some(buffer) => buffer
                .length()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }

    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let watch = &self.watch;
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                // Now it is the client's turn, not the app's.
                watch.upstream.clear();
                if watch.client.has_passed() {
                    return Poll::Ready(Some(Err(UploadError::ClientIdle)));
                }
                if !watch.client.is_set() && self.idle_ms > 0 {
                    watch.client.set_in(self.idle_ms);
                }
                return Poll::Pending;
            }
        };
        watch.client.clear();
        // From here on the app must read what it has been sent, and then respond.
        watch.upstream.set_in(self.first_byte_ms);
        let frame = match frame {
            Some(frame) => frame.map_err(UploadError::Client)?,
            None => return Poll::Ready(None),
        };
        if let Some(data) = frame.data_ref() {
            let Some(left) = self.left.checked_sub(data.len() as u64) else {
                watch.too_large.store(true, Relaxed);
                return Poll::Ready(Some(Err(UploadError::TooLarge)));
            };
            self.left = left;
        }
        Poll::Ready(Some(Ok(frame)))
    }
}
