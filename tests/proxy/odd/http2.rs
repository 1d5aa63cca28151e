//! What an HTTP/2 client may try.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use http::Request;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::OK;
use crate::proxy::{Proxy, app, read_head, route};
use crate::support::wait::soon;

const LIMIT: Duration = Duration::from_secs(10);

async fn open(proxy: &Proxy) -> SendRequest<Full<Bytes>> {
    connect(proxy).await.0
}

/// The connection too, which tells how it ended.
pub async fn connect(
    proxy: &Proxy,
) -> (
    SendRequest<Full<Bytes>>,
    JoinHandle<Result<(), hyper::Error>>,
) {
    let io = TokioIo::new(TcpStream::connect(proxy.address).await.unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (sender, connection) = handshake.unwrap();
    (sender, tokio::spawn(connection))
}

pub fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

/// Answers everything, after a while where it is asked for `/slow`; counts what it was asked.
async fn counting() -> (std::net::SocketAddr, Arc<AtomicU64>) {
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    let address = app(move |mut stream| {
        let asked = count.clone();
        async move {
            loop {
                let head = read_head(&mut stream).await;
                if head.is_empty() {
                    return;
                }
                asked.fetch_add(1, SeqCst);
                if head.starts_with("GET /slow") {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                if stream.write_all(OK.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (address, asked)
}

/// Requests that are taken back as soon as they are made ("rapid reset").
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_taken_back_at_once_hold_nobody_up() {
    let proxy = Proxy::start().await;
    let (address, _) = counting().await;
    proxy.publish(1, &[address]).await;
    let attack = async {
        let mut sent = 0;
        let begun = Instant::now();
        let goes_on = |sent| sent < 5_000 && begun.elapsed() < Duration::from_secs(1);
        while goes_on(sent) {
            let mut sender = open(&proxy).await;
            while goes_on(sent) && sender.ready().await.is_ok() {
                let request = sender.send_request(get("http://a.test/slow"));
                sent += 1;
                // Sent, and then dropped.
                let _ = timeout(Duration::from_micros(100), request).await;
            }
        }
        sent
    };
    let neighbour = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..30 {
            let begun = Instant::now();
            assert!(proxy.get("/").await.ends_with("ok"));
            slowest = slowest.max(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        slowest
    };
    let (sent, slowest) = tokio::join!(attack, neighbour);
    assert!(sent > 100, "{sent}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let free = async || proxy.client.stats().await.unwrap()[0].in_flight == 0;
    assert!(soon(free).await, "all of them are let go");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_grows_when_it_is_unpacked_is_refused() {
    let proxy = Proxy::start().await;
    let (address, asked) = counting().await;
    proxy.publish(1, &[address]).await;
    let mut sender = open(&proxy).await;
    // The same field again and again is a byte each on the wire.
    let mut request = Request::get("http://a.test/");
    for _ in 0..2_000 {
        request = request.header("x-same", "0123456789012345678901234567890123456789");
    }
    let answer = sender.send_request(request.body(Full::default()).unwrap());
    match timeout(LIMIT, answer).await.unwrap() {
        Ok(answer) => assert_eq!(answer.status(), 431),
        Err(error) => assert!(!error.is_timeout(), "{error}"),
    }
    assert_eq!(asked.load(SeqCst), 0);
    // One too many header fields for the app's side is no reason to fail either.
    let mut request = Request::get("http://a.test/");
    for number in 0..150 {
        request = request.header(format!("x-{number}"), "1");
    }
    let mut sender = open(&proxy).await;
    let answer = sender
        .send_request(request.body(Full::default()).unwrap())
        .await;
    assert_eq!(answer.unwrap().status(), 200);
    proxy.stop().await;
}

/// A stream that takes nothing is cut off by its app's drain; its neighbour on the connection, which
/// belongs to another app, is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_cuts_off_one_apps_streams_and_no_others() {
    let proxy = Proxy::start().await;
    let endless = app(|mut stream| async move {
        read_head(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
        let _ = stream.write_all(head.as_bytes()).await;
        while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
    })
    .await;
    let (other, _) = counting().await;
    let table = |generation| {
        let mut a = route("a", generation, &[endless]);
        a.hosts = vec!["a.test".into()];
        let mut b = route("b", 1, &[other]);
        b.hosts = vec!["b.test".into()];
        cutover::proxy::table::Table {
            generation,
            routes: vec![a, b],
            ..Default::default()
        }
    };
    proxy.client.publish(&table(1)).await.unwrap();
    let sender = open(&proxy).await;
    let held = sender
        .clone()
        .send_request(get("http://a.test/"))
        .await
        .unwrap();
    proxy.client.publish(&table(2)).await.unwrap();
    let slow = sender.clone().send_request(get("http://b.test/slow"));
    let limit = Duration::from_millis(100);
    let drain = proxy.client.drain("a", 2, limit, limit);
    let (receipt, slow) = tokio::join!(drain, slow);
    let receipt = receipt.unwrap();
    assert_eq!((receipt.drained, receipt.failed), (1, 1), "{receipt:?}");
    let slow = slow.unwrap().into_body().collect().await.unwrap();
    assert_eq!(slow.to_bytes(), "ok");
    let next = sender.clone().send_request(get("http://b.test/")).await;
    assert_eq!(next.unwrap().status(), 200);
    let cut = timeout(LIMIT, held.into_body().collect()).await.unwrap();
    assert!(cut.is_err(), "the client can tell");
    proxy.stop().await;
}

/// Half an upload over HTTP/2 does not look whole to the app either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_taken_back_never_passes_for_a_whole_one() {
    let proxy = Proxy::start().await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let sink = app(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            let _ = tell.send(String::from_utf8_lossy(&all).into_owned());
        }
    })
    .await;
    proxy.publish(1, &[sink]).await;
    let io = TokioIo::new(TcpStream::connect(proxy.address).await.unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (mut sender, connection) = handshake.unwrap();
    tokio::spawn(connection);
    // A part, and then nothing.
    let part =
        futures_util::stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from("half")))]);
    let body = StreamBody::new(part.chain(futures_util::stream::pending()));
    let request = Request::post("http://a.test/").body(body).unwrap();
    let answer = sender.send_request(request);
    let _ = timeout(Duration::from_millis(200), answer).await;
    let got = timeout(LIMIT, told.recv()).await.unwrap().unwrap();
    assert!(
        got.contains("half") && !got.ends_with("0\r\n\r\n"),
        "{got:?}"
    );
    proxy.stop().await;
}

#[tokio::test]
async fn the_proxys_own_page_has_no_content_for_a_head() {
    let proxy = Proxy::start().await;
    let mut sender = open(&proxy).await;
    let request = Request::head("http://a/").body(Full::default()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 404);
    let length = answer.headers()["content-length"].to_str().unwrap();
    assert_ne!(length, "0", "it is that of a GET");
    let body = answer.into_body().collect().await.expect("no content");
    assert!(body.to_bytes().is_empty());
    proxy.stop().await;
}

/// What HTTP/2 takes for one length may be two for an app.
#[tokio::test]
async fn an_app_gets_one_length_whatever_http2_says() {
    let proxy = Proxy::start().await;
    let app = app(|mut stream| async move {
        let head = read_head(&mut stream).await.to_lowercase();
        let lengths: Vec<_> = head
            .lines()
            .filter_map(|line| line.strip_prefix("content-length:"))
            .collect();
        let text = lengths.join(",");
        let answer = format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    proxy.publish(1, &[app]).await;
    let mut sender = open(&proxy).await;
    for (lengths, body, seen) in [
        (&["2"][..], "hi", " 2"),
        (&["2", "2"], "hi", " 2"),
        (&["2", "02"], "hi", " 2"),
        (&["0"], "", " 0"),
        (&[""], "", " 0"),
        (&["", "0"], "", " 0"),
    ] {
        let mut request = Request::post("http://a/").body(Full::from(body)).unwrap();
        for length in lengths {
            let length = length.parse().unwrap();
            request.headers_mut().append("content-length", length);
        }
        let answer = sender.send_request(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, seen, "{lengths:?}");
    }
    proxy.stop().await;
}
