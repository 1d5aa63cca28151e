//! A client that speaks HTTP/2 frame by frame: WebSockets (RFC 8441), and what it cannot take from
//! others.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::proxy::{Proxy, app, read_head, says};
use crate::support::wait::soon;
use crate::version::App;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

async fn connect(proxy: &Proxy) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    (client.ready().await.unwrap(), connection)
}

fn get(path: &str) -> Request<()> {
    let uri = format!("http://a.test{path}");
    Request::get(uri).body(()).unwrap()
}

/// Asks for a WebSocket; returns the status and both halves of the stream.
async fn open(proxy: &Proxy) -> (StatusCode, SendStream<Bytes>, RecvStream) {
    let (mut client, _) = connect(proxy).await;
    let offered = soon(async || client.is_extended_connect_protocol_enabled()).await;
    assert!(offered);
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri("http://a.test/ws?room=1")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .body(())
        .unwrap();
    let websocket = h2::ext::Protocol::from_static("websocket");
    request.extensions_mut().insert(websocket);
    let (answer, send) = client.send_request(request, false).unwrap();
    let answer = answer.await.unwrap();
    for name in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(!answer.headers().contains_key(name), "{answer:?}");
    }
    let status = answer.status();
    (status, send, answer.into_body())
}

async fn read(stream: &mut RecvStream, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        let data = stream.data().await.expect("the stream goes on").unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        all.extend(data);
    }
    all
}

/// An app that echoes on a WebSocket and says how it was asked for one.
async fn echo() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let address = app(move |mut stream| {
        let tell = tell.clone();
        async move {
            let head = read_head(&mut stream).await;
            tell.send(head).unwrap();
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                          Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                let _ = stream.write_all(&buffer[..n]).await;
            }
        }
    })
    .await;
    (address, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_over_http2_becomes_an_upgrade_and_is_told_to_come_back_at_a_switch() {
    let proxy = Proxy::start().await;
    let (old, mut asked) = echo().await;
    let (new, _new_asked) = echo().await;
    proxy.publish(1, &[old]).await;
    let (status, mut send, mut receive) = open(&proxy).await;
    assert_eq!(status, 200);
    let head = asked.recv().await.unwrap().to_lowercase();
    assert!(head.starts_with("get /ws?room=1 http/1.1\r\n"), "{head}");
    for line in [
        "host: a.test",
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-version: 13",
        "sec-websocket-protocol: chat",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    let key = head.split("sec-websocket-key: ").nth(1).unwrap();
    assert_eq!(key.find("\r\n"), Some(24), "{head}");
    let frame = [0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
    send.send_data(Bytes::copy_from_slice(&frame), false)
        .unwrap();
    assert_eq!(read(&mut receive, 8).await, frame);

    proxy.publish(2, &[new]).await;
    let (soon, later) = (Duration::from_millis(100), Duration::from_secs(5));
    let client = proxy.client.clone();
    let drain = tokio::spawn(async move { client.drain("app", 2, later, soon).await });
    assert_eq!(read(&mut receive, 4).await, [0x88, 2, 0x03, 0xe9]);
    let answer = [0x88, 0x82, 0, 0, 0, 0, 3, 0xe9];
    send.send_data(Bytes::copy_from_slice(&answer), true)
        .unwrap();
    let receipt = drain.await.unwrap().unwrap();
    assert_eq!(receipt.websockets_closed, 1, "{receipt:?}");
    assert_eq!(receipt.failed, 0, "{receipt:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn an_app_that_does_not_take_the_websocket_is_no_success() {
    let proxy = Proxy::start().await;
    for (generation, answer, status) in [
        (1, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 502),
        (2, "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", 403),
    ] {
        let target = says(answer, Duration::from_secs(5)).await;
        proxy.publish(generation, &[target]).await;
        let (got, _, _) = open(&proxy).await;
        assert_eq!(got, status);
    }
    // A tunnel to anywhere is not to be had, nor another protocol.
    let (mut client, _) = connect(&proxy).await;
    let request = Request::connect("b.test:25").body(()).unwrap();
    let (answer, _) = client.send_request(request, false).unwrap();
    assert_eq!(answer.await.unwrap().status(), 405);
    proxy.stop().await;
}

#[tokio::test]
async fn announced_trailers_of_a_request_reach_an_app_that_speaks_http_1() {
    let proxy = Proxy::start().await;
    let mirror = app(|mut stream| async move {
        let mut text = Vec::new();
        let is_whole = |text: &[u8]| {
            let text = String::from_utf8_lossy(text).into_owned();
            let end = text.find("\r\n0\r\n");
            end.is_some_and(|end| text[end..].contains("\r\n\r\n"))
        };
        while !is_whole(&text) {
            let mut part = [0; 1024];
            match stream.read(&mut part).await {
                Ok(n @ 1..) => text.extend_from_slice(&part[..n]),
                _ => return,
            }
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            text.len()
        );
        stream
            .write_all(&[head.as_bytes(), &text].concat())
            .await
            .unwrap();
    });
    proxy.publish(1, &[mirror.await]).await;
    let (mut client, _) = connect(&proxy).await;
    let request = Request::post("http://a.test/").header("trailer", "x-sum");
    let request = request.body(()).unwrap();
    let (answer, mut send) = client.send_request(request, false).unwrap();
    send.send_data(Bytes::from_static(b"ok"), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    trailers.insert("x-other", "8".parse().unwrap());
    send.send_trailers(trailers).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        text.extend(data.unwrap());
    }
    let text = String::from_utf8_lossy(&text).to_lowercase();
    assert!(text.contains("\r\ntrailer: x-sum\r\n"), "{text}");
    assert!(text.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{text}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_header_list_has_a_limit_and_the_connection_goes_on() {
    let proxy = Proxy::start().await;
    proxy.publish(1, &[App::start(1).await.address]).await;
    let (mut client, _) = connect(&proxy).await;
    let mut large = get("/");
    for n in 0..70 {
        let name: http::HeaderName = format!("x-{n}").parse().unwrap();
        large
            .headers_mut()
            .insert(name, "v".repeat(1000).parse().unwrap());
    }
    let (answer, _) = client.send_request(large, true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 431);
    let (answer, _) = client.send_request(get("/"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    proxy.stop().await;
}

#[tokio::test]
async fn requests_at_a_time_are_limited_per_connection() {
    let proxy = Proxy::start().await;
    proxy
        .publish(1, &[says("", Duration::from_secs(60)).await])
        .await;
    let (client, _connection) = connect(&proxy).await;
    // As the proxy has announced it.
    let limited = soon(async || client.current_max_send_streams() == 128).await;
    assert!(limited, "{}", client.current_max_send_streams());
    proxy.stop().await;
}

/// CVE-2023-44487: streams that are opened and reset at once never count as open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_resets_ends_its_own_connection_and_nobody_elses() {
    let proxy = Proxy::start().await;
    proxy.publish(1, &[App::start(1).await.address]).await;
    let (mut client, flooding) = connect(&proxy).await;
    let (mut other, _) = connect(&proxy).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let ended = loop {
        assert!(Instant::now() < deadline, "it may go on and on");
        match client.send_request(get("/slow"), true) {
            Ok((_answer, mut stream)) => stream.send_reset(Reason::CANCEL),
            Err(error) => break error,
        }
        if flooding.is_finished() {
            break flooding.await.unwrap().unwrap_err();
        }
        match client.ready().await {
            Ok(ready) => client = ready,
            Err(error) => break error,
        }
        tokio::task::yield_now().await;
    };
    // What the proxy says last is lost where the flood came faster than it could be read.
    let calm = ended.reason() == Some(Reason::ENHANCE_YOUR_CALM);
    assert!(calm || ended.is_io(), "{ended}");
    let (answer, _) = other.send_request(get("/"), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    proxy.stop().await;
}
