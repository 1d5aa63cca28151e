//! An HTTP/1 connection to an app. It is polled by the request that it carries and has no task of its
//! own, so that no wake-up between two tasks is needed.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use super::app_io::AppIo;
use super::request_body::RequestBody;
use super::upload::UploadError;
use crate::proxy::wire::app_body::{Decoder, Piece};
use crate::proxy::wire::{app_head, head};

/// How many bytes are read at a time, initially and at most.
const READ: usize = 8 << 10;
const MAX_READ: usize = 128 << 10;

/// Why an app sent no response, or only a part of one.
#[derive(Debug, Error)]
pub enum UpstreamError {
    #[error("the app had closed the connection before anything was written")]
    Unsent,
    #[error("the app closed the connection")]
    Closed,
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("invalid response: {0}")]
    Malformed(&'static str),
    /// As far as it has arrived, in bytes.
    #[error("the response's header is too long, at least {} KiB", .0 >> 10)]
    LongHead(usize),
    #[error("{0}")]
    Request(UploadError),
    #[error("{0}")]
    Http2(hyper::Error),
}

impl UpstreamError {
    /// What was wrong with the request's body, if that was the cause.
    pub fn of_request(&self) -> Option<&UploadError> {
        match self {
            Self::Request(error) => Some(error),
            Self::Http2(error) => std::error::Error::source(error)?.downcast_ref(),
            _ => None,
        }
    }
}

pub struct Upstream {
    io: AppIo,
    /// Bytes that have been read and not yet parsed.
    read: BytesMut,
    /// What is still to be written: this, then `data`, then what `body` yields.
    write: Vec<u8>,
    written: usize,
    data: Bytes,
    body: RequestBody,
    chunked: bool,
    /// The values of the request's `Trailer` fields.
    announced: Vec<HeaderValue>,
    /// Whether any of the request has been written.
    sent: bool,
    method: Method,
    /// Whether the request has a body; stays true after the body has been sent.
    has_body: bool,
    answer: Decoder,
    /// How long the head of a response may be, in bytes.
    longest: usize,
    /// Whether another request may follow after this response.
    keeps: bool,
    /// Whether it has carried a request before.
    pub reused: bool,
    pub idle_since: Instant,
}

impl Upstream {
    /// `longest`: how long the head of a response may be, in bytes.
    pub async fn connect(
        target: SocketAddr,
        limit: Duration,
        longest: usize,
    ) -> io::Result<Box<Self>> {
        let stream = tokio::time::timeout(limit, TcpStream::connect(target)).await??;
        stream.set_nodelay(true)?;
        Ok(Box::new(Self {
            io: AppIo::new(stream),
            read: BytesMut::new(),
            write: Vec::new(),
            written: 0,
            data: Bytes::new(),
            body: RequestBody::Empty,
            chunked: false,
            announced: Vec::new(),
            sent: false,
            method: Method::GET,
            has_body: false,
            answer: Decoder::Length(0),
            longest,
            keeps: true,
            reused: false,
            idle_since: Instant::now(),
        }))
    }

    /// Prepares the request to be sent next, and takes its body.
    pub fn begin(&mut self, request: &mut Request<RequestBody>) {
        let headers = request.headers();
        self.chunked = headers.contains_key(header::TRANSFER_ENCODING);
        self.announced = match self.chunked {
            true => headers.get_all(header::TRAILER).iter().cloned().collect(),
            false => Vec::new(),
        };
        app_head::write(request, &mut self.write);
        self.method = request.method().clone();
        self.body = std::mem::replace(request.body_mut(), RequestBody::Empty);
        self.has_body = !matches!(self.body, RequestBody::Empty);
        self.sent = false;
        self.keeps = false;
    }

    /// Whether the app has most likely read the request's body. An app that responds without reading
    /// it may close the connection afterwards without announcing that.
    fn is_read(&self, status: StatusCode) -> bool {
        let reads = [Method::POST, Method::PUT, Method::PATCH].contains(&self.method);
        !self.has_body || (reads && status.is_success())
    }

    /// Gives the body back to the request. If nothing was sent, nothing of the body was read.
    pub fn give_back(&mut self, request: &mut Request<RequestBody>) {
        *request.body_mut() = std::mem::replace(&mut self.body, RequestBody::Empty);
    }

    /// Continues to send the request, and waits for the response's head.
    pub fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, UpstreamError>> {
        self.send(cx)?;
        loop {
            while let Some(length) = head::length(&self.read) {
                if length > self.longest {
                    return Poll::Ready(Err(UpstreamError::LongHead(length)));
                }
                let head = Bytes::copy_from_slice(&self.read[..length]);
                self.read.advance(length);
                let head = app_head::read(head, &self.method).map_err(UpstreamError::Malformed)?;
                let status = head.response.status();
                if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                    continue;
                }
                self.answer = head.body;
                self.keeps = head.keeps && self.is_read(status);
                return Poll::Ready(Ok(head.response));
            }
            if self.read.len() >= self.longest {
                return Poll::Ready(Err(UpstreamError::LongHead(self.read.len())));
            }
            let read = ready!(self.poll_fill(cx, READ));
            if !matches!(read, Ok(1..)) && self.reused && !self.sent {
                return Poll::Ready(Err(UpstreamError::Unsent));
            }
            if read? == 0 {
                return Poll::Ready(Err(UpstreamError::Closed));
            }
        }
    }

    /// The next frame of the response's body. The rest of the request is sent at the same time.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamError>>> {
        if self.send(cx).is_err() {
            // The response counts, even if the app has not received all of the request.
            self.body = RequestBody::Empty;
            self.keeps = false;
        }
        loop {
            match self.answer.piece(&mut self.read) {
                Ok(Piece::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::None) => {}
                Err(why) => return Poll::Ready(Some(Err(UpstreamError::Malformed(why)))),
            }
            let room = match self.answer {
                Decoder::Length(left) => usize::try_from(left).unwrap_or(MAX_READ),
                _ => self.read.capacity() * 2,
            };
            match ready!(self.poll_fill(cx, room.clamp(READ, MAX_READ))) {
                Ok(0) if self.answer == Decoder::UntilClose => return Poll::Ready(None),
                Ok(0) => return Poll::Ready(Some(Err(UpstreamError::Closed))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// How many bytes of the response's body are still to come, if that is known.
    pub fn left(&self) -> Option<u64> {
        match self.answer {
            Decoder::Length(left) => Some(left),
            _ => None,
        }
    }

    /// The whole response has been read.
    pub fn is_answered(&self) -> bool {
        self.answer.is_ended()
    }

    /// Whether request and response are complete and the connection can carry another request.
    pub fn is_at_rest(&self) -> bool {
        let sent = self.write.is_empty() && matches!(self.body, RequestBody::Empty);
        self.keeps && sent && self.is_answered() && self.read.is_empty()
    }

    /// Whether the app has neither closed the idle connection nor sent anything on it.
    pub fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        // No task needs to be woken: the next request that gets the connection polls it anyway.
        let mut noop = Context::from_waker(Waker::noop());
        let io = Pin::new(&mut self.io);
        io.poll_read(&mut noop, &mut buf).is_pending()
    }

    /// The connection, and the bytes that have been read from it.
    pub fn into_parts(self) -> (TcpStream, Bytes) {
        (self.io.into_inner(), self.read.freeze())
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        // Half of `room` is enough: otherwise each read after the first would move the bytes in the
        // buffer.
        if self.read.capacity() - self.read.len() < room / 2 {
            self.read.reserve(room);
        }
        poll_read_buf(Pin::new(&mut self.io), cx, &mut self.read)
    }

    /// Writes until nothing is left or the app's socket accepts no more.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), UpstreamError> {
        loop {
            while self.written < self.write.len() || !self.data.is_empty() {
                let head = &self.write[self.written..];
                let io = Pin::new(&mut self.io);
                let written = match self.data.is_empty() {
                    true => io.poll_write(cx, head),
                    false => {
                        let both = [IoSlice::new(head), IoSlice::new(&self.data)];
                        io.poll_write_vectored(cx, &both)
                    }
                };
                let Poll::Ready(n) = written else {
                    return Ok(());
                };
                let n = n?;
                if n == 0 {
                    return Err(UpstreamError::Closed);
                }
                self.sent |= !self.io.is_refused();
                if self.reused && !self.sent {
                    // At once, while the body is still whole: it will be sent over another connection.
                    return Err(UpstreamError::Unsent);
                }
                let of_head = n.min(self.write.len() - self.written);
                self.written += of_head;
                self.data.advance(n - of_head);
            }
            self.write.clear();
            self.written = 0;
            if !self.more(cx)? {
                return Ok(());
            }
        }
    }

    /// Takes the next part of the request's body. Returns whether there is more to write.
    fn more(&mut self, cx: &mut Context<'_>) -> Result<bool, UpstreamError> {
        if self.body.is_end_stream() && !self.chunked {
            self.body = RequestBody::Empty;
        }
        if matches!(self.body, RequestBody::Empty) {
            return Ok(false);
        }
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(frame) => frame.transpose().map_err(UpstreamError::Request)?,
        };
        let Some(frame) = frame else {
            self.body = RequestBody::Empty;
            if self.chunked {
                self.write.extend_from_slice(b"0\r\n\r\n");
            }
            return Ok(true);
        };
        match frame.into_data() {
            Ok(data) if !self.chunked => self.data = data,
            Ok(data) => app_head::write_chunk(&data, &mut self.write),
            Err(frame) => {
                self.body = RequestBody::Empty;
                let trailers = frame.into_trailers().unwrap_or_default();
                app_head::write_trailers(&trailers, &self.announced, &mut self.write);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{pending, poll_fn};

    use http_body_util::BodyExt;
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncWriteExt, DuplexStream};
    use tokio::net::TcpListener;

    use super::super::upload::Upload;
    use super::*;
    use crate::proxy::watch::Watches;

    /// A body of `hello` as sent by a client, and the client's end.
    async fn hello() -> (DuplexStream, RequestBody) {
        let (mut client, server) = tokio::io::duplex(1024);
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<Incoming>| {
            let _ = tell.send(request.into_body());
            pending::<Result<Response<String>, Infallible>>()
        });
        let served = http1::Builder::new().serve_connection(TokioIo::new(server), service);
        tokio::spawn(served);
        let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        client.write_all(request).await.unwrap();
        let upload = Upload {
            incoming: told.recv().await.unwrap(),
            watch: Watches::default().add(),
            left: u64::MAX,
            idle_ms: 5_000,
            first_byte_ms: 5_000,
            buffer: None,
        };
        (client, RequestBody::Stream(upload))
    }

    #[tokio::test]
    async fn what_the_app_did_not_take_is_given_back_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connect = Upstream::connect(address, Duration::from_secs(5), head::USUAL);
        let mut upstream = connect.await.unwrap();
        upstream.reused = true;
        let (app, _) = listener.accept().await.unwrap();
        let reset = socket2::SockRef::from(&app).set_linger(Some(Duration::ZERO));
        reset.unwrap();
        drop(app);
        while upstream.is_silent() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (_client, body) = hello().await;
        let mut request = Request::post("/").body(body).unwrap();
        upstream.begin(&mut request);
        let answer = poll_fn(|cx| upstream.poll_answer(cx)).await;
        assert!(matches!(answer, Err(UpstreamError::Unsent)));
        upstream.give_back(&mut request);
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "hello");
    }
}
