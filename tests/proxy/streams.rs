//! What lasts longer than a switch: WebSockets, event streams, downloads, uploads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::proxy::{Proxy, app, read_head, says};
use crate::support::wait::not_yet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                         Upgrade: websocket\r\n\r\n";
const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// An app that sends back every byte, and tells what it got.
async fn echo() -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (tell, told) = mpsc::unbounded_channel();
    let address = app(move |mut stream| {
        let tell = tell.clone();
        async move {
            let head = read_head(&mut stream).await;
            assert!(head.to_lowercase().contains("\r\nconnection: upgrade\r\n"));
            stream.write_all(SWITCHING.as_bytes()).await.unwrap();
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                let _ = tell.send(buffer[..n].to_vec());
                let _ = stream.write_all(&buffer[..n]).await;
            }
        }
    })
    .await;
    (address, told)
}

async fn open(proxy: &Proxy) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head:?}");
    stream
}

async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    let done = tokio::time::timeout(Duration::from_secs(10), read).await;
    done.expect("the connection is closed").unwrap();
    rest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_are_closed_one_after_the_other_and_both_sides_are_told() {
    let proxy = Proxy::start().await;
    let (old, mut got) = echo().await;
    let (new, _) = echo().await;
    proxy.publish(1, &[old]).await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        let mut socket = open(&proxy).await;
        let frame = [0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
        socket.write_all(&frame).await.unwrap();
        let mut back = [0; 8];
        socket.read_exact(&mut back).await.unwrap();
        assert_eq!(back, frame);
        got.recv().await.unwrap();
        sockets.push(socket);
    }
    proxy.publish(2, &[new]).await;
    let client = proxy.client.clone();
    let start = Instant::now();
    let drain = tokio::spawn(async move {
        let window = Duration::from_millis(600);
        client.drain("app", 2, Duration::from_secs(1), window).await
    });
    let each = sockets.iter_mut().map(|socket| async move {
        let mut close = [0; 4];
        socket.read_exact(&mut close).await.unwrap();
        assert_eq!(close, GOING_AWAY);
        let at = start.elapsed();
        // A client answers with its own close; what else follows is the app's echo of ours.
        let answer = [0x88, 0x82, 0, 0, 0, 0, 3, 0xe9];
        socket.write_all(&answer).await.unwrap();
        until_closed(socket).await;
        at
    });
    let mut closed_at = futures_util::future::join_all(each).await;
    closed_at.sort();
    let (first, last) = (closed_at[0], closed_at[3]);
    assert!(last - first >= Duration::from_millis(300), "{closed_at:?}");
    assert!(last < Duration::from_millis(1500), "{closed_at:?}");
    let receipt = drain.await.unwrap().unwrap();
    assert_eq!(receipt.websockets_closed, 4, "{receipt:?}");
    assert_eq!(receipt.failed, 0, "{receipt:?}");
    for _ in 0..4 {
        let close = got.recv().await.unwrap();
        assert_eq!(close[..2], [0x88, 0x82], "the app's side is told, masked");
        assert_eq!([close[6] ^ close[2], close[7] ^ close[3]], [3, 0xe9]);
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_frame_waits_for_the_end_of_the_frame_under_way() {
    let proxy = Proxy::start().await;
    let (go, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = std::sync::Mutex::new(Some(wait));
    let old = app(move |mut stream| {
        let wait = wait.lock().unwrap().take().unwrap();
        async move {
            read_head(&mut stream).await;
            // The frame's beginning comes with the handshake itself.
            let early = [SWITCHING.as_bytes(), &[0x82, 10, 0, 1, 2]].concat();
            stream.write_all(&early).await.unwrap();
            wait.await.unwrap();
            let rest = [3, 4, 5, 6, 7, 8, 9, 0x82, 1, 99];
            stream.write_all(&rest).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    proxy.publish(1, &[old]).await;
    let mut socket = open(&proxy).await;
    proxy.publish(2, &[]).await;
    let drain = tokio::spawn({
        let client = proxy.client.clone();
        async move {
            client
                .drain("app", 2, Duration::from_secs(1), Duration::ZERO)
                .await
        }
    });
    // Nothing comes in the midst of the frame. Maybe its first five bytes came with the head.
    let mut all = Vec::new();
    let early = async { while socket.read_buf(&mut all).await.unwrap() > 0 {} };
    let early = tokio::time::timeout(Duration::from_millis(100), early).await;
    assert!(early.is_err() && all.len() <= 5, "{all:?}");
    go.send(()).unwrap();
    all.extend(until_closed(&mut socket).await);
    assert!(
        all.ends_with(&[&[6, 7, 8, 9][..], &GOING_AWAY].concat()),
        "{all:?}"
    );
    assert_eq!(drain.await.unwrap().unwrap().websockets_closed, 1);
    proxy.stop().await;
}

/// Events in two parts, with a pause after each part.
async fn events(pause_ms: u64) -> SocketAddr {
    app(move |mut stream| async move {
        read_head(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..1000 {
            for part in ["6\r\ndata: \r\n", "3\r\nx\n\n\r\n"] {
                if stream.write_all(part.as_bytes()).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_stream_ends_after_a_whole_event_and_is_no_failure() {
    let proxy = Proxy::start().await;
    let old = events(20).await;
    proxy.publish(1, &[old]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let request = b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    read_head(&mut stream).await;
    proxy.publish(2, &[]).await;
    let (requests, window) = (Duration::from_secs(5), Duration::from_millis(100));
    let receipt = proxy
        .client
        .drain("app", 2, requests, window)
        .await
        .unwrap();
    assert_eq!((receipt.failed, receipt.drained), (0, 1), "{receipt:?}");
    let mut text = Vec::new();
    let whole = async {
        while !text.ends_with(b"\r\n0\r\n\r\n") {
            assert!(stream.read_buf(&mut text).await.unwrap() > 0);
        }
    };
    let limit = Duration::from_secs(5);
    let done = tokio::time::timeout(limit, whole).await.is_ok();
    let text = String::from_utf8_lossy(&text);
    assert!(done && text.ends_with("x\n\n\r\n0\r\n\r\n"), "{text:?}");
    proxy.stop().await;
}

/// No EventSource sends POST: whoever asked does not ask again for what is cut off, such as a model's answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_stream_that_was_posted_for_is_served_to_its_end() {
    let proxy = Proxy::start().await;
    let old = app(|mut stream| async move {
        read_head(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..50 {
            stream.write_all(b"9\r\ndata: x\n\n\r\n").await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    })
    .await;
    proxy.publish(1, &[old]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let request =
        b"POST /chat HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    read_head(&mut stream).await;
    proxy.publish(2, &[]).await;
    let (requests, window) = (Duration::from_secs(30), Duration::from_millis(100));
    let (receipt, text) = tokio::join!(
        proxy.client.drain("app", 2, requests, window),
        until_closed(&mut stream)
    );
    let receipt = receipt.unwrap();
    assert_eq!((receipt.failed, receipt.drained), (0, 1), "{receipt:?}");
    let text = String::from_utf8_lossy(&text);
    assert!(text.ends_with("\r\n0\r\n\r\n"), "{text:?}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_event_streams_as_fill_the_window_all_end_before_the_deadline() {
    let proxy = Proxy::start().await;
    proxy.publish(1, &[events(200).await]).await;
    let mut streams = Vec::new();
    for _ in 0..60 {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let request = b"GET /events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        read_head(&mut stream).await;
        streams.push(stream);
    }
    proxy.publish(2, &[]).await;
    let limit = Duration::from_secs(2);
    let receipt = proxy.client.drain("app", 2, limit, limit).await.unwrap();
    assert_eq!((receipt.failed, receipt.drained), (0, 60), "{receipt:?}");
    for mut stream in streams {
        let text = until_closed(&mut stream).await;
        assert!(text.ends_with(b"\n\n\r\n0\r\n\r\n"));
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_began_before_the_switch_ends_whole() {
    let proxy = Proxy::start().await;
    let go_on = Arc::new(Notify::new());
    let told = go_on.clone();
    let old = app(move |mut stream| {
        let told = told.clone();
        async move {
            read_head(&mut stream).await;
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&[b'x'; 500_000]).await.unwrap();
            told.notified().await;
            stream.write_all(&[b'x'; 500_000]).await.unwrap();
        }
    })
    .await;
    proxy.publish(1, &[old]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut got = read_head(&mut stream).await.len();
    proxy.publish(2, &[]).await;
    let second = Duration::from_secs(5);
    let client = proxy.client.clone();
    let mut drain = Box::pin(client.drain("app", 2, second, second));
    not_yet(&mut drain).await;
    go_on.notify_one();
    let (receipt, rest) = tokio::join!(drain, until_closed(&mut stream));
    got += rest.len();
    assert!(got > 1_000_000, "{got}");
    let receipt = receipt.unwrap();
    assert_eq!((receipt.failed, receipt.drained), (0, 1), "{receipt:?}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_dies_in_mid_answer_is_counted_and_the_client_can_tell() {
    let proxy = Proxy::start().await;
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let old = says(cut, Duration::ZERO).await;
    proxy.publish(1, &[old]).await;
    let answer = proxy.get("/").await;
    assert!(answer.ends_with("half"), "{answer:?}");
    let stats = proxy.client.stats().await.unwrap();
    assert_eq!((stats[0].requests, stats[0].failures.closed), (1, 1));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_does_not_hold_the_drain_up() {
    let proxy = Proxy::start().await;
    let (tell, full) = tokio::sync::oneshot::channel();
    let tell = std::sync::Mutex::new(Some(tell));
    let old = app(move |mut stream| {
        let tell = tell.lock().unwrap().take().unwrap();
        async move {
            read_head(&mut stream).await;
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            let quick = Duration::from_millis(100);
            let mut write = async || timeout(quick, stream.write_all(&[b'x'; 100_000])).await;
            while matches!(write().await, Ok(Ok(()))) {}
            tell.send(()).unwrap();
            // It stays connected until the proxy has enough of it.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    proxy.publish(1, &[old]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    read_head(&mut stream).await;
    // All buffers are.
    full.await.unwrap();
    proxy.publish(2, &[]).await;
    let (requests, window) = (Duration::from_millis(200), Duration::ZERO);
    let receipt = proxy
        .client
        .drain("app", 2, requests, window)
        .await
        .unwrap();
    assert_eq!((receipt.failed, receipt.drained), (1, 1), "{receipt:?}");
    assert!(receipt.drain_ms < 2_000, "{receipt:?}");
    proxy.stop().await;
}
