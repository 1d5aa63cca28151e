//! A client connection that speaks HTTP/2.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};

use super::forward::{Connection, forward};
use super::http1::MAX_HEAD;
use super::listen::Listening;

/// Requests at a time over one connection.
const STREAMS: u32 = 128;
/// A client that does not answer is gone.
const PING: Duration = Duration::from_secs(30);

/// Answers requests until the connection ends.
pub async fn serve<S>(stream: S, connection: Arc<Connection>, shared: &Arc<Listening>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let watch = connection.watch.clone();
    let service = service_fn(|request| {
        let stream = Connection {
            routes: connection.routes.clone(),
            client: Mutex::new(connection.client.lock().clone()),
            watch: connection.routes.watches.add_stream(&connection.watch),
        };
        async move { Ok::<_, Infallible>(forward(&stream, request).await) }
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .keep_alive_interval(PING)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let mut told = false;
    let ended = std::future::poll_fn(|cx| {
        if let Poll::Ready(ended) = served.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        watch.register(cx.waker());
        if watch.killed.load(SeqCst) {
            return Poll::Ready(Ok(()));
        }
        // Unlike HTTP/1.1, HTTP/2 can say which requests are still served: no need to wait.
        if !told && shared.stage.is_leaving() {
            told = true;
            served.as_mut().graceful_shutdown();
            return served.as_mut().poll(cx);
        }
        Poll::Pending
    });
    if let Err(error) = ended.await {
        tracing::trace!("a client connection ended: {error}");
    }
}
