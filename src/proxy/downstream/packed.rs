//! A response's body on its way to the client, compressed. What the app has sent is passed on as soon as
//! nothing more follows at once, so that what streams goes on streaming.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http_body::{Body, Frame};

/// How much is compressed before others have their turn, in bytes: some tenths of a millisecond.
const SLICE: usize = 16 << 10;
/// Each compression has its window in memory.
const AT_A_TIME: usize = 256;
/// What compression looks back on, as a power of two of bytes.
const WINDOW: u32 = 18;

static ACTIVE: AtomicUsize = AtomicUsize::new(0);

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

impl Coding {
    /// Those that there are, the best one first.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

pub struct Packed<S> {
    inner: Box<S>,
    /// `None` once everything has been compressed.
    encoder: Option<Encoder>,
    /// What is still to be compressed.
    input: Bytes,
    /// Whether the encoder holds something back.
    holds: bool,
    ended: bool,
    trailers: Option<HeaderMap>,
}

impl<S> Packed<S> {
    /// Gives the body back if there is no room for another compression.
    pub fn new(inner: Box<S>, coding: Coding) -> Result<Self, Box<S>> {
        match Encoder::new(coding) {
            Some(encoder) => Ok(Self {
                inner,
                encoder: Some(encoder),
                input: Bytes::new(),
                holds: false,
                ended: false,
                trailers: None,
            }),
            None => Err(inner),
        }
    }
}

impl<S: Body<Data = Bytes> + Unpin> Packed<S> {
    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, S::Error>>> {
        loop {
            let Some(encoder) = &mut self.encoder else {
                return Poll::Ready(self.trailers.take().map(|it| Ok(Frame::trailers(it))));
            };
            if !self.input.is_empty() {
                let part = self.input.split_to(self.input.len().min(SLICE));
                encoder.write(&part);
                self.holds = true;
                if let Some(output) = encoder.take() {
                    return Poll::Ready(Some(Ok(Frame::data(output))));
                }
                continue;
            }
            if self.ended {
                let rest = encoder.finish();
                self.encoder = None;
                match rest.is_empty() {
                    true => continue,
                    false => return Poll::Ready(Some(Ok(Frame::data(rest)))),
                }
            }
            match Pin::new(&mut *self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.input = data,
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.ended = true;
                    }
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => {
                    if std::mem::take(&mut self.holds) {
                        encoder.flush();
                        if let Some(output) = encoder.take() {
                            return Poll::Ready(Some(Ok(Frame::data(output))));
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Its output goes to memory, where writing does not fail.
struct Encoder(Kind);

enum Kind {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding) -> Option<Self> {
        if ACTIVE.fetch_add(1, Relaxed) >= AT_A_TIME {
            ACTIVE.fetch_sub(1, Relaxed);
            return None;
        }
        let kind = match coding {
            Coding::Zstd => zstd_encoder().ok().map(Kind::Zstd),
            Coding::Brotli => {
                let writer = brotli::CompressorWriter::new(Vec::new(), SLICE, 4, WINDOW);
                Some(Kind::Brotli(Box::new(writer)))
            }
            Coding::Gzip => {
                let level = flate2::Compression::new(5);
                Some(Kind::Gzip(GzEncoder::new(Vec::new(), level)))
            }
        };
        if kind.is_none() {
            ACTIVE.fetch_sub(1, Relaxed);
        }
        kind.map(Self)
    }

    fn write(&mut self, part: &[u8]) {
        let _ = self.0.writer().write_all(part);
    }

    fn flush(&mut self) {
        let _ = self.0.writer().flush();
    }

    fn take(&mut self) -> Option<Bytes> {
        let output = self.0.output();
        (!output.is_empty()).then(|| std::mem::take(output).into())
    }

    fn finish(&mut self) -> Bytes {
        let _ = match &mut self.0 {
            Kind::Zstd(encoder) => encoder.do_finish(),
            Kind::Gzip(encoder) => encoder.try_finish(),
            // Its end is written when it is dropped or taken apart.
            Kind::Brotli(encoder) => {
                let empty = brotli::CompressorWriter::new(Vec::new(), 1, 0, 10);
                let ended = std::mem::replace(&mut **encoder, empty).into_inner();
                return ended.into();
            }
        };
        self.take().unwrap_or_default()
    }
}

impl Kind {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Zstd(encoder) => encoder,
            Self::Brotli(encoder) => &mut **encoder,
            Self::Gzip(encoder) => encoder,
        }
    }

    fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Gzip(encoder) => encoder.get_mut(),
        }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        ACTIVE.fetch_sub(1, Relaxed);
    }
}

fn zstd_encoder() -> io::Result<zstd::stream::write::Encoder<'static, Vec<u8>>> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3)?;
    encoder.window_log(WINDOW)?;
    Ok(encoder)
}
