//! A request's body as it arrives from the client, limited in size and time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use thiserror::Error;

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
}

impl Upload {
    pub fn poll_frame(
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
