//! A request's body that can be sent again as long as it is short. Over HTTP/2 an app may refuse a
//! request without processing it (RFC 9113, 8.7), and every gRPC message is in a body.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use parking_lot::Mutex;

use super::upload::{Upload, UploadError};

/// How many bytes are kept of one body.
const KEPT: usize = 64 << 10;

/// A body together with what has been read of it.
pub struct Replay(Mutex<State>);

struct State {
    upload: Upload,
    /// What has been read, from the beginning; `None`: it became too long to keep.
    read: Option<Vec<Part>>,
    size: usize,
    ended: bool,
    /// Which attempt may read on: an earlier one may not know yet that it is over.
    turn: u32,
}

#[derive(Clone)]
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// The body in one attempt to send it.
pub struct Replayed {
    replay: Arc<Replay>,
    turn: u32,
    /// How many parts of `read` have been sent.
    at: usize,
}

impl Replay {
    /// The body for the first attempt.
    pub fn begin(upload: Upload) -> Replayed {
        let state = State {
            upload,
            read: Some(Vec::new()),
            size: 0,
            ended: false,
            turn: 0,
        };
        Replayed {
            replay: Arc::new(Self(Mutex::new(state))),
            turn: 0,
            at: 0,
        }
    }

    /// The body for another attempt, from the beginning, if everything that was read has been kept.
    pub fn again(self: &Arc<Self>) -> Option<Replayed> {
        let mut state = self.0.lock();
        state.read.as_ref()?;
        state.turn += 1;
        Some(Replayed {
            replay: self.clone(),
            turn: state.turn,
            at: 0,
        })
    }
}

impl Replayed {
    pub fn replay(&self) -> Arc<Replay> {
        self.replay.clone()
    }

    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let mut state = self.replay.0.lock();
        let state = &mut *state;
        if state.turn != self.turn {
            return Poll::Ready(Some(Err(UploadError::Again)));
        }
        if let Some(part) = state.read.as_ref().and_then(|read| read.get(self.at)) {
            self.at += 1;
            return Poll::Ready(Some(Ok(part.clone().into())));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = state.upload.poll_frame(cx) else {
            return Poll::Pending;
        };
        match &frame {
            None => state.ended = true,
            Some(Ok(frame)) => {
                self.at += 1;
                state.keep(frame);
            }
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    pub fn is_end_stream(&self) -> bool {
        let state = self.replay.0.lock();
        let sent = state.read.as_ref().is_none_or(|read| read.len() == self.at);
        sent && (state.ended || state.upload.incoming.is_end_stream())
    }
}

impl State {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let part = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Part::Data(data.clone()),
            (None, Some(trailers)) => Part::Trailers(trailers.clone()),
            (None, None) => return,
        };
        if let Part::Data(data) = &part {
            self.size += data.len();
        }
        match &mut self.read {
            Some(read) if self.size <= KEPT => read.push(part),
            read => *read = None,
        }
    }
}

impl From<Part> for Frame<Bytes> {
    fn from(part: Part) -> Self {
        match part {
            Part::Data(data) => Frame::data(data),
            Part::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}
