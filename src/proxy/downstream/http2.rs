//! Serves a client's HTTP/2 connection. hyper has no time limit for a client that reads nothing or
//! sends no request: here both have deadlines.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Poll;
use std::time::Duration;

use http::{Method, header};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};

use super::handler::{Connection, Handler};
use super::limits::Place;
use super::response::ResponseBody;
use super::server::Server;
use crate::proxy::watch::Watch;

/// The most concurrent requests on one connection.
const STREAMS: u32 = 128;
/// How often a client is pinged.
const PING: Duration = Duration::from_secs(30);

/// Serves until either side ends the connection.
pub async fn serve<S, H>(
    stream: S,
    connection: Arc<Connection>,
    _place: Place,
    server: &Arc<Server<H>>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Handler,
{
    let watch = connection.watch.clone();
    let limits = server.limits;
    let streams = Streams::default();
    let service = service_fn(|request| {
        let watch = server.watches.add_stream(&connection.watch);
        watch.takes_ms.store(limits.write_ms, SeqCst);
        connection.watch.client.set_in(limits.idle_ms);
        *streams.0.lock() = Some(watch.clone());
        let stream = Connection {
            client: Mutex::new(connection.client.lock().clone()),
            watch,
        };
        let server = server.clone();
        async move {
            let is_head = request.method() == Method::HEAD;
            let mut response = server.handler.handle(&stream, request).await;
            if let ResponseBody::Full(page) = response.body_mut() {
                // Not an app's response, whose body would do both of these itself.
                stream.watch.taking.set_in(limits.write_ms);
                if let Some(page) = page.take_if(|_| is_head) {
                    let headers = response.headers_mut();
                    headers.insert(header::CONTENT_LENGTH, page.len().into());
                }
            }
            // With HTTP/2 only the client closes the connection.
            response.headers_mut().remove(header::CONNECTION);
            Ok::<_, Infallible>(response)
        }
    });
    let http = http2::Builder::new(streams.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(limits.head as u32)
        .keep_alive_interval(PING)
        .enable_connect_protocol()
        .serve_connection(TokioIo::new(stream), service);
    let mut http = pin!(http);
    watch.client.set_in(limits.idle_ms);
    let mut told = false;
    let ended = std::future::poll_fn(|cx| {
        if let Poll::Ready(ended) = http.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        watch.register(cx.waker());
        let yields = watch.yields.load(SeqCst) && !watch.has_streams();
        let idle = watch.client.has_passed() || yields;
        if idle && watch.has_streams() {
            watch.client.set_in(limits.idle_ms);
        } else if idle && told {
            // It did not leave when told to, or never sent a request.
            return Poll::Ready(Ok(()));
        } else if !told && (idle || server.stage.is_leaving()) {
            // Unlike HTTP/1.1, HTTP/2 can say which requests are still served (GOAWAY): no need to
            // wait.
            told = true;
            watch.client.set_in(limits.head_ms);
            http.as_mut().graceful_shutdown();
            return http.as_mut().poll(cx);
        }
        Poll::Pending
    });
    if let Err(error) = ended.await {
        tracing::trace!("a client connection ended: {error}");
    }
}

/// Runs the tasks of one connection's streams, and resets a stream whose client does not read it, while
/// the others continue.
#[derive(Clone, Default)]
struct Streams(Arc<Mutex<Option<Arc<Watch>>>>);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // The watch of the request that hyper has just passed to the service: both calls run on one
        // thread.
        let watch = self.0.lock().take();
        tokio::spawn(async move {
            let mut stream = pin!(stream);
            std::future::poll_fn(|cx| {
                if stream.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                let Some(watch) = &watch else {
                    return Poll::Pending;
                };
                watch.register(cx.waker());
                match watch.killed.load(SeqCst) || watch.taking.has_passed() {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await
        });
    }
}
