//! What a client may try.

use std::time::{Duration, Instant};

use cutover::proxy::Limits;
use cutover::proxy::table::Table;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{GET, OK, http2};
use crate::proxy::{Proxy, app, read_head, route, says, until_busy};
use crate::support::wait::soon;

const LIMIT: Duration = Duration::from_secs(5);

/// An app that answers every request on a connection.
async fn keeps() -> std::net::SocketAddr {
    app(|mut stream| async move {
        while !read_head(&mut stream).await.is_empty() {
            if stream.write_all(OK.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// An app whose answer has no end in sight.
async fn endless() -> std::net::SocketAddr {
    app(|mut stream| async move {
        read_head(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
        let _ = stream.write_all(head.as_bytes()).await;
        while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
    })
    .await
}

async fn quick(change: impl FnOnce(&mut cutover::proxy::Options)) -> Proxy {
    Proxy::start_with(|options| {
        options.limits = Limits {
            head_ms: 300,
            idle_ms: 300,
            write_ms: 300,
            ..options.limits
        };
        change(options);
    })
    .await
}

/// Everything until the end, which must come.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = timeout(LIMIT, stream.read_to_end(&mut all)).await;
    let text = String::from_utf8_lossy(&all).into_owned();
    assert!(read.is_ok(), "no end after {text:?}");
    text
}

async fn connect(proxy: &Proxy, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// `Upgrade` opens no way around the strict reading of what follows.
#[tokio::test]
async fn after_an_upgrade_that_nobody_grants_nothing_more_is_read() {
    let proxy = Proxy::start().await;
    proxy.publish(1, &[keeps().await]).await;
    let loose = "POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\
                 Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for fields in [
        "Upgrade: x\r\n",
        "Upgrade: x\r\nConnection: upgrade\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\n",
    ] {
        let first = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let answer = rest(&mut connect(&proxy, &(first.clone() + loose)).await).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        let answer = rest(&mut connect(&proxy, &first).await).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let stats = proxy.client.stats().await.unwrap();
    assert_eq!(stats[0].requests, 6, "no second one");
    proxy.stop().await;
}

/// A tunnel that speaks HTTP/2 would carry requests past every route.
#[tokio::test]
async fn http2_cannot_be_smuggled_in_an_upgrade() {
    let proxy = Proxy::start().await;
    let app = app(|mut stream| async move {
        let head = read_head(&mut stream).await.to_lowercase();
        let status = match head.contains("upgrade") || head.contains("http2-settings") {
            true => {
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\
                     Connection: upgrade\r\n\r\n"
            }
            false => OK,
        };
        let _ = stream.write_all(status.as_bytes()).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    proxy.publish(1, &[app]).await;
    let answer = proxy
        .raw(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_host_that_is_none_is_refused() {
    let proxy = Proxy::start().await;
    proxy.publish(1, &[keeps().await]).await;
    let ask = async |target: &str, host: &str| {
        let fields = format!("Host: {host}\r\nConnection: close\r\n\r\n");
        proxy
            .raw(&format!("GET {target} HTTP/1.1\r\n{fields}"))
            .await
    };
    for host in [
        "a b", "a,b", "a/b", "a@b", "a\\b", "a?b", "a\"b", "a<b>", "a\u{e9}", "a:xyz", "a:80:80",
        "a:+80", "[::1", "::1", "[::1]a", "a[::1]",
    ] {
        let answer = ask("/", host).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{host:?}: {answer}");
    }
    for target in ["http://u@a/", "http://u:p@a/"] {
        let answer = ask(target, "a").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{target:?}: {answer}");
    }
    for host in [
        "a", "a.b:80", "a:", "[::1]:80", "[::1]", "a_b", "xn--a", "a.", "",
    ] {
        let answer = ask("/", host).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host:?}: {answer}");
    }
    proxy.stop().await;
}

/// Wherever the last answer came from.
#[tokio::test]
async fn a_kept_connection_that_stays_silent_is_closed() {
    let proxy = quick(|_| {}).await;
    let table = |generation, text: Option<&str>, targets: &[_]| {
        let mut route = route("app", generation, targets);
        route.hosts = vec!["a".into()];
        route.policy.maintenance = text.map(Into::into);
        Table {
            generation,
            routes: vec![route],
            ..Default::default()
        }
    };
    let begun = Instant::now();
    for (generation, text, targets, status) in [
        (1, None, vec![keeps().await], 200),
        (2, Some("Back at noon."), vec![], 503),
        (3, None, vec![], 503),
    ] {
        let table = table(generation, text, &targets);
        proxy.client.publish(&table).await.unwrap();
        let answer = rest(&mut connect(&proxy, GET).await).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    let unknown = GET.replace(": a", ": b");
    let answer = rest(&mut connect(&proxy, &unknown).await).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "not one by one's limit"
    );
    proxy.stop().await;
}

#[tokio::test]
async fn the_beginning_of_http2_may_come_byte_by_byte() {
    let proxy = Proxy::start().await;
    proxy.publish(1, &[keeps().await]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    stream
        .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    let mut frame = [0; 9];
    timeout(LIMIT, stream.read_exact(&mut frame))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(frame[3], 4, "its settings: {frame:?}");
    // And what only begins like it is what it is.
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    proxy.stop().await;
}

/// Two bytes and then nothing: neither protocol's deadline has begun.
#[tokio::test]
async fn who_begins_and_stops_is_closed_whatever_it_began() {
    let proxy = quick(|options| options.proxy_protocol = false).await;
    proxy.publish(1, &[keeps().await]).await;
    for start in ["P", "PRI ", "PRI * HTTP/2.0\r\n", "GET / HT", "\r\n"] {
        let begun = Instant::now();
        rest(&mut connect(&proxy, start).await).await;
        assert!(begun.elapsed() < Duration::from_secs(3), "{start:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_websocket_takes_one_of_its_clients_places() {
    let proxy = Proxy::start_with(|options| options.max_per_client = 2).await;
    let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: upgrade\r\n\r\n";
    proxy
        .publish(1, &[says(switching, Duration::from_secs(60)).await])
        .await;
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
                   Connection: upgrade\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&proxy, upgrade).await;
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        held.push(stream);
    }
    let mut third = TcpStream::connect(proxy.address).await.unwrap();
    let closed = timeout(LIMIT, third.read(&mut [0; 1])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    drop(held);
    let begun = Instant::now();
    loop {
        let mut again = TcpStream::connect(proxy.address).await.unwrap();
        let _ = again.write_all(upgrade.as_bytes()).await;
        if read_head(&mut again).await.starts_with("HTTP/1.1 101 ") {
            break;
        }
        assert!(begun.elapsed() < 2 * LIMIT, "the places are free again");
    }
    proxy.stop().await;
}

/// With the PROXY protocol the limit is each real client's, not the balancer's.
#[tokio::test]
async fn a_balancers_clients_are_limited_one_by_one() {
    let proxy = Proxy::start_with(|options| {
        options.proxy_protocol = true;
        options.max_per_client = 1;
    })
    .await;
    proxy.publish(1, &[keeps().await]).await;
    let from = |n| format!("PROXY TCP4 192.0.2.{n} 127.0.0.1 1 2\r\n{GET}");
    let mut held = Vec::new();
    for client in 1..4 {
        let mut stream = connect(&proxy, &from(client)).await;
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{client}: {head}");
        held.push(stream);
    }
    assert_eq!(proxy.raw(&from(2)).await, "", "its second one");
    proxy.stop().await;
}

/// An upload that breaks off must not look whole to the app.
#[tokio::test]
async fn half_an_upload_never_passes_for_a_whole_one() {
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
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    for part in [
        "Content-Length: 100\r\n\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "Transfer-Encoding: chunked\r\n\r\n8\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    ] {
        let stream = connect(&proxy, &format!("{head}{part}")).await;
        until_busy(&proxy).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(stream);
        let got = timeout(LIMIT, told.recv())
            .await
            .expect("it is let go")
            .unwrap();
        assert!(!got.ends_with("0\r\n\r\n"), "{part:?}: {got:?}");
        assert!(got.len() < 600, "{got}");
    }
    until_counted(&proxy, 4).await;
    let stats = proxy.client.stats().await.unwrap();
    assert_eq!(stats[0].failures.client, 4, "{stats:?}");
    proxy.stop().await;
}

/// Whether a client has only said everything or has left cannot be told; an app is not kept busy
/// for one that may have left, as nginx does it.
#[tokio::test]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let proxy = Proxy::start().await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let slow = app(move |mut stream| {
        let tell = tell.clone();
        async move {
            read_head(&mut stream).await;
            let end = stream.read(&mut [0; 1]).await;
            let _ = tell.send(end);
        }
    })
    .await;
    proxy.publish(1, &[slow]).await;
    for half in [true, false] {
        let mut stream = connect(&proxy, GET).await;
        until_busy(&proxy).await;
        match half {
            true => stream.shutdown().await.unwrap(),
            false => drop(stream),
        }
        let end = timeout(LIMIT, told.recv()).await.unwrap().unwrap();
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    until_counted(&proxy, 2).await;
    let stats = proxy.client.stats().await.unwrap();
    assert_eq!(stats[0].failures.client, 2, "{stats:?}");
    proxy.stop().await;
}

async fn until_counted(proxy: &Proxy, requests: u64) {
    let counted = async || proxy.client.stats().await.unwrap()[0].requests >= requests;
    assert!(soon(counted).await, "it is held for ever");
}

/// Small steps of a window, so that a slow reader of HTTP/1 runs into the deadline for writing.
#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go() {
    let proxy = quick(|_| {}).await;
    proxy.publish(1, &[endless().await]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(proxy.address).await.unwrap();
    stream.write_all(GET.as_bytes()).await.unwrap();
    until_counted(&proxy, 1).await;
    proxy.stop().await;
}

/// The same over HTTP/2, where the connection itself is read but the stream's window is never
/// opened.
#[tokio::test]
async fn an_http2_stream_that_takes_nothing_is_let_go() {
    let proxy = quick(|_| {}).await;
    proxy.publish(1, &[endless().await]).await;
    let (mut sender, _) = http2::connect(&proxy).await;
    // Its body is held and never read.
    let _answer = sender.send_request(http2::get("http://a/")).await.unwrap();
    until_counted(&proxy, 1).await;
    proxy.stop().await;
}

/// Nor is the proxy's own page kept for whoever makes no room for it.
#[tokio::test]
async fn an_http2_stream_that_takes_no_page_is_let_go() {
    let proxy = quick(|_| {}).await;
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0);
    let (sender, connection) = builder.handshake::<_, bytes::Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let request = http::Request::get("http://a/").body(()).unwrap();
    let (answer, _) = sender.send_request(request, true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 404);
    let mut body = answer.into_body();
    let ended = timeout(LIMIT, body.data()).await.expect("it is let go");
    assert!(ended.is_some_and(|ended| ended.is_err()), "nothing came");
    proxy.stop().await;
}

/// A write that waits has its deadline also if the client says something in the meantime.
#[tokio::test]
async fn a_client_that_asks_on_and_takes_nothing_is_let_go() {
    let proxy = quick(|_| {}).await;
    proxy.publish(1, &[endless().await]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(proxy.address).await.unwrap();
    stream.write_all(GET.as_bytes()).await.unwrap();
    until_busy(&proxy).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    until_counted(&proxy, 1).await;
    proxy.stop().await;
}

/// An HTTP/2 connection on which nothing is asked is as idle as any other.
#[tokio::test]
async fn an_idle_http2_connection_is_closed_in_order() {
    let proxy = quick(|_| {}).await;
    proxy.publish(1, &[keeps().await]).await;
    let (mut sender, connection) = http2::connect(&proxy).await;
    for _ in 0..2 {
        let answer = sender.send_request(http2::get("http://a/")).await.unwrap();
        assert_eq!(answer.status(), 200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ended = timeout(LIMIT, connection).await.expect("it is closed");
    ended.unwrap().unwrap();
    proxy.stop().await;
}
