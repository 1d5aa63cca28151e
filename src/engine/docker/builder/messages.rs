//! The engine's messages during a build: one JSON object a line.

use std::io;

use bytes::BytesMut;
use futures_util::{Stream, stream};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use memchr::memchr;
use serde::de::DeserializeOwned;

/// A longer message is nothing that an engine sends, in bytes.
const LONGEST: usize = 32 << 20;

struct Reading {
    body: Incoming,
    bytes: BytesMut,
    /// How much of `bytes` contains no line feed.
    searched: usize,
    ended: bool,
}

/// The messages, until the body ends or fails.
pub(super) fn messages<T: DeserializeOwned>(body: Incoming) -> impl Stream<Item = io::Result<T>> {
    let reading = Reading {
        body,
        bytes: BytesMut::new(),
        searched: 0,
        ended: false,
    };
    stream::unfold(reading, |mut reading| async {
        let next = reading.next().await.transpose()?;
        reading.ended |= next.is_err();
        Some((next, reading))
    })
}

impl Reading {
    async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        while !self.ended {
            if let Some(end) = memchr(b'\n', &self.bytes[self.searched..]) {
                let line = self.bytes.split_to(self.searched + end + 1);
                self.searched = 0;
                if !line.trim_ascii().is_empty() {
                    return parsed(&line).map(Some);
                }
                continue;
            }
            self.searched = self.bytes.len();
            if self.searched > LONGEST {
                return Err(io::Error::other("it sent a message without end"));
            }
            match self.body.frame().await {
                Some(frame) => {
                    let frame = frame.map_err(io::Error::other)?;
                    self.bytes
                        .extend_from_slice(&frame.into_data().unwrap_or_default());
                }
                None => self.ended = true,
            }
        }
        match std::mem::take(&mut self.bytes) {
            rest if rest.trim_ascii().is_empty() => Ok(None),
            rest => parsed(&rest).map(Some),
        }
    }
}

fn parsed<T: DeserializeOwned>(line: &[u8]) -> io::Result<T> {
    serde_json::from_slice(line)
        .map_err(|error| io::Error::other(format!("it sent something unknown: {error}")))
}
