//! A client connection that speaks HTTP/1.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Poll;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::client_io::{ClientIo, FIELDS};
use super::handler::{Connection, Handler};
use super::limits::Place;
use super::response::ResponseBody;
use super::server::Server;

/// How much of a body is read before it is passed on, in bytes.
const BUFFER: usize = 128 << 10;

/// Answers requests until the connection ends. When the next request does not follow soon, the
/// connection is put to rest: hyper's part of it, with its buffers, is many times larger than what has
/// to be kept.
pub async fn serve<S, H>(
    stream: S,
    early: Vec<u8>,
    connection: Arc<Connection>,
    place: Place,
    server: &Arc<Server<H>>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Handler,
{
    let watch = connection.watch.clone();
    watch.idle_ms.store(server.limits.idle_ms, SeqCst);
    let secure = connection.client.lock().secure;
    let mut io = ClientIo::new(stream, early, secure, place, watch, server.limits);
    loop {
        // Not in the loop's condition, where the box would stay alive while the connection rests.
        let resting = Box::pin(converse(io, &connection, server)).await;
        let Some((mut resting, read)) = resting else {
            if let Some(long) = connection.watch.long_head.get() {
                server.handler.refused(long);
            }
            return;
        };
        let withheld = resting.take_back(&read);
        // hyper's whole buffer, which would be kept for as long as the connection rests.
        drop(read);
        connection.watch.widens.store(false, SeqCst);
        io = resting;
        if !withheld && !wake_up(&mut io, &connection, server).await {
            let _ = io.shutdown().await;
            return;
        }
    }
}

/// hyper's HTTP/1 server, with our settings: how long a request's head may be, and how many fields it may
/// have.
pub fn builder(limit: usize, fields: usize) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_header_size(limit)
        .max_buf_size(BUFFER);
    if fields > FIELDS {
        builder.max_headers(fields);
    }
    builder
}

/// Makes the response the last one of its connection, unless it switches protocols.
pub fn make_last(headers: &mut HeaderMap) {
    let close = HeaderValue::from_static("close");
    headers.entry(header::CONNECTION).or_insert(close);
}

/// Serves until the connection ends or comes to rest, or a head has more fields than hyper takes; then the
/// stream is returned, and what hyper has read of it and not used.
async fn converse<S, H>(
    io: ClientIo<S>,
    connection: &Arc<Connection>,
    server: &Arc<Server<H>>,
) -> Option<(ClientIo<S>, Bytes)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Handler,
{
    let watch = &connection.watch;
    let fields = io.fields();
    let service = service_fn(|request: Request<Incoming>| {
        let (connection, server) = (connection.clone(), server.clone());
        async move {
            let watch = &connection.watch;
            watch.rest.clear();
            watch.answering.store(true, SeqCst);
            let has_body = !request.body().is_end_stream();
            let mut response = server.handler.handle(&connection, request).await;
            watch.answering.store(false, SeqCst);
            if let ResponseBody::Full(_) = response.body() {
                watch.request_done();
                // hyper closes it behind a page if the body has not been read to its end: whoever sends
                // the next request there has to know (RFC 9112, 9.6).
                if has_body {
                    make_last(response.headers_mut());
                }
            }
            if server.stage.is_leaving() || watch.unfollowed.load(SeqCst) {
                make_last(response.headers_mut());
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = builder(server.limits.head, fields)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut told = false;
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut http).poll(cx) {
            return Poll::Ready(Some(ended));
        }
        watch.register(cx.waker());
        if !told && server.stage.is_closing() {
            told = true;
            Pin::new(&mut http).graceful_shutdown();
            return Pin::new(&mut http).poll(cx).map(Some);
        }
        match watch.may_rest() || watch.may_widen() {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    });
    match ended.await {
        None => {
            // At rest no part of a request has arrived: hyper can have read only empty lines.
            let parts = http.into_parts()?;
            return Some((parts.io.into_inner(), parts.read_buf));
        }
        Some(Err(error)) => tracing::trace!("a client connection ended: {error}"),
        Some(Ok(())) => {}
    }
    None
}

/// Waits for the next request's first byte. False: the connection must be closed.
async fn wake_up<S, H>(io: &mut ClientIo<S>, connection: &Connection, server: &Server<H>) -> bool
where
    S: AsyncRead + Unpin,
{
    let watch = &connection.watch;
    watch.rest.clear();
    poll_fn(|cx| {
        if let Poll::Ready(woken) = io.poll_early(cx) {
            return Poll::Ready(woken);
        }
        watch.register(cx.waker());
        match server.stage.is_closing() || watch.yields.load(SeqCst) {
            true => Poll::Ready(false),
            false => Poll::Pending,
        }
    })
    .await
}
