//! A switch under load drops nothing, although the old app is gone at once when the drain is done.

mod proxy_support;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proxy_support::Proxy;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// An app that says its version; killed, it is gone with all its connections.
struct App {
    address: SocketAddr,
    task: JoinHandle<()>,
    posts: Arc<AtomicU64>,
}

impl App {
    async fn start(version: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let posts = Arc::new(AtomicU64::new(0));
        let counted = posts.clone();
        let task = tokio::spawn(async move {
            // Dropped with the task, and with it every connection: like a process that exits.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let posts = counted.clone();
                let service = service_fn(move |request| answer(request, version, posts.clone()));
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            address,
            task,
            posts,
        }
    }

    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn answer(
    request: Request<Incoming>,
    version: u64,
    posts: Arc<AtomicU64>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/slow" {
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    if request.method() == Method::POST {
        let body = request.into_body().collect().await;
        if body.is_ok() {
            posts.fetch_add(1, SeqCst);
        }
    }
    Ok(Response::new(Full::new(Bytes::from(version.to_string()))))
}

/// Asks again and again until told to stop; returns what went wrong, and how many were answered.
async fn ask(
    proxy: SocketAddr,
    request: fn() -> Request<Full<Bytes>>,
    keep_alive: bool,
    stop: Arc<AtomicBool>,
) -> (u64, Vec<String>) {
    let (mut answered, mut wrong) = (0, Vec::new());
    let mut sender = None;
    while !stop.load(SeqCst) {
        let mut open = match sender.take() {
            Some(open) => open,
            None => {
                let stream = TcpStream::connect(proxy).await.unwrap();
                let (open, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream))
                        .await
                        .unwrap();
                tokio::spawn(connection);
                open
            }
        };
        let result = async {
            let response = open.send_request(request()).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>((status, body))
        };
        match result.await {
            Ok((status, _)) if status.is_success() => answered += 1,
            other => wrong.push(format!("{other:?}")),
        }
        if keep_alive && open.ready().await.is_ok() {
            sender = Some(open);
        }
    }
    (answered, wrong)
}

fn get() -> Request<Full<Bytes>> {
    let request = Request::get("/").header("host", "a.test");
    request.body(Full::default()).unwrap()
}

fn slow() -> Request<Full<Bytes>> {
    let request = Request::get("/slow").header("host", "a.test");
    request.body(Full::default()).unwrap()
}

fn post() -> Request<Full<Bytes>> {
    let request = Request::post("/").header("host", "a.test");
    request.body(Full::from("once and only once")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_switches_under_load_lose_nothing_and_apply_every_post_once() {
    let proxy = Proxy::start().await;
    let mut app = App::start(1).await;
    proxy.publish(1, &[app.address]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = |request, keep| tokio::spawn(ask(proxy.address, request, keep, stop.clone()));
    let gets = [load(get, true), load(get, true), load(get, false)];
    let slows = [load(slow, true), load(slow, false)];
    let posters = [load(post, true), load(post, false)];

    let mut applied = 0;
    let (mut drained, mut counted) = (0, 0);
    for generation in 2..=11 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let next = App::start(generation).await;
        proxy.publish(generation, &[next.address]).await;
        let answer = proxy.get("/").await;
        assert!(answer.ends_with(&generation.to_string()), "{answer:?}");
        let drain = proxy.client.drain(
            "app",
            generation,
            Duration::from_secs(5),
            Duration::from_secs(1),
        );
        let receipt = drain.await.unwrap();
        assert_eq!(receipt.failed, 0, "{receipt:?}");
        drained += receipt.drained;
        counted += receipt.requests;
        let old = std::mem::replace(&mut app, next);
        applied += old.posts.load(SeqCst);
        old.kill().await;
    }
    stop.store(true, SeqCst);
    let mut posted = 0;
    for task in gets.into_iter().chain(slows) {
        let (answered, wrong) = task.await.unwrap();
        assert_eq!(wrong, Vec::<String>::new());
        assert!(answered > 5);
    }
    for task in posters {
        let (answered, wrong) = task.await.unwrap();
        assert_eq!(wrong, Vec::<String>::new());
        posted += answered;
    }
    applied += app.posts.load(SeqCst);
    assert_eq!(applied, posted, "every POST exactly once");
    assert!(drained >= 10 && counted > drained, "{drained} {counted}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_drain_waits_for_its_deadline_and_counts_what_it_cuts_off() {
    let proxy = Proxy::start().await;
    let stuck = proxy_support::says("", Duration::from_secs(60)).await;
    let app = App::start(2).await;
    proxy.publish(1, &[stuck]).await;
    let waiting = tokio::spawn({
        let address = proxy.address;
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            use tokio::io::AsyncWriteExt;
            let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
            stream.write_all(request).await.unwrap();
            proxy_support::read_head(&mut stream).await
        }
    });
    // Until the request is on its way.
    while proxy.client.stats().await.unwrap()[0].in_flight == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (requests, websockets) = (Duration::from_millis(200), Duration::ZERO);
    let early = proxy.client.drain("app", 2, requests, websockets).await;
    assert!(early.unwrap_err().to_string().contains("still serves"));

    proxy.publish(2, &[app.address]).await;
    let drain = || proxy.client.drain("app", 2, requests, websockets);
    let receipt = drain().await.unwrap();
    assert_eq!((receipt.drained, receipt.failed), (1, 1), "{receipt:?}");
    assert!(receipt.drain_ms >= 200, "{receipt:?}");
    assert!(waiting.await.unwrap().starts_with("HTTP/1.1 504 "));
    // An agent that has crashed meanwhile asks again.
    assert_eq!(drain().await.unwrap(), receipt);
    proxy.stop().await;
}
