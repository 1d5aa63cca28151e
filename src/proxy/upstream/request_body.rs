//! The body of a request as it is sent to an app.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::replay::Replayed;
use super::upload::{Upload, UploadError};

/// The body that is sent to the app.
pub enum RequestBody {
    Empty,
    Stream(Upload),
    /// One whose beginning is kept.
    Replayed(Replayed),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(upload) => upload.poll_frame(cx),
            Self::Replayed(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(upload) => upload.is_end_stream(),
            Self::Replayed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(upload) => upload.size_hint(),
            // If the length is known, Content-Length states it.
            Self::Replayed(_) => SizeHint::default(),
        }
    }
}
