//! A real WebSocket client and a real server with the proxy between.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cutover::proxy::table::Table;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use crate::proxy::{Proxy, app, route};
use crate::support::wait::soon;

const LIMIT: Duration = Duration::from_secs(10);

/// Sends every message back; tells what it got, and how it ended. tungstenite refuses frames of a
/// client that are not masked.
async fn echo() -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (tell, told) = mpsc::unbounded_channel();
    let address = app(move |stream| {
        let tell = tell.clone();
        async move { converse(accept_async(stream).await.unwrap(), tell).await }
    })
    .await;
    (address, told)
}

async fn converse<S>(mut socket: WebSocketStream<S>, tell: mpsc::UnboundedSender<String>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = socket.next().await {
        let said = match &message {
            Ok(Message::Text(text)) => format!("text {}", text.len()),
            Ok(Message::Binary(bytes)) => format!("binary {}", bytes.len()),
            Ok(Message::Ping(_)) => "ping".to_owned(),
            Ok(Message::Close(Some(close))) => format!("close {}", close.code),
            other => format!("{other:?}"),
        };
        let _ = tell.send(said);
        if let Ok(message @ (Message::Text(_) | Message::Binary(_))) = message {
            let _ = socket.send(message).await;
        }
    }
    let _ = tell.send("over".to_owned());
}

/// The same over HTTP/2 (RFC 8441), if it `takes` that, and tells how it was asked; a plain request
/// gets 400.
async fn echo_h2c(takes: bool) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (tell, told) = mpsc::unbounded_channel();
    let address = app(move |stream| {
        let tell = tell.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let tell = tell.clone();
            async move {
                let protocol = request.extensions().get::<Protocol>();
                let protocol = protocol.map(|protocol| protocol.as_str().to_owned());
                let asked = format!("{} {protocol:?} {}", request.method(), request.uri());
                let hop = ["connection", "upgrade", "sec-websocket-key"];
                let left = hop.iter().any(|name| request.headers().contains_key(*name));
                tell.send(format!("{asked}{}", if left { " and more" } else { "" }))
                    .unwrap();
                let mut answer = Response::new(Empty::<Bytes>::new());
                if protocol.is_none() {
                    *answer.status_mut() = StatusCode::BAD_REQUEST;
                    return Ok::<_, Infallible>(answer);
                }
                tokio::spawn(async move {
                    let stream = hyper::upgrade::on(&mut request).await.unwrap();
                    let stream = TokioIo::new(stream);
                    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None);
                    converse(socket.await, tell).await;
                });
                Ok(answer)
            }
        });
        async move {
            let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            if takes {
                http2.enable_connect_protocol();
            }
            let _ = http2.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await;
    (address, told)
}

async fn publish_h2c(proxy: &Proxy, generation: u64, target: SocketAddr) {
    let mut one = route("app", generation, &[target]);
    one.policy.h2c = true;
    let table = Table::new(generation, vec![one]);
    proxy.client.publish(&table).await.unwrap();
}

/// The client's side over HTTP/2; an error is the status.
async fn open_http2(proxy: &Proxy) -> Result<WebSocketStream<TokioIo<Upgraded>>, StatusCode> {
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let io = TokioIo::new(stream);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut client, connection) = handshake.await.unwrap();
    assert!(soon(async || connection.is_extended_connect_protocol_enabled()).await);
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "http://a.test/ws".parse().unwrap();
    let websocket = Protocol::from_static("websocket");
    request.extensions_mut().insert(websocket);
    let mut answer = client.send_request(request).await.unwrap();
    if answer.status() != StatusCode::OK {
        return Err(answer.status());
    }
    let stream = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    Ok(WebSocketStream::from_raw_socket(stream, Role::Client, None).await)
}

async fn open(proxy: &Proxy) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    client_async("ws://a.test/ws", stream).await.unwrap().0
}

async fn next<S>(socket: &mut WebSocketStream<S>) -> Message
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    timeout(LIMIT, socket.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_pass_whole_however_they_are_framed() {
    let proxy = Proxy::start().await;
    let (app, mut told) = echo().await;
    proxy.publish(1, &[app]).await;
    let mut socket = open(&proxy).await;
    for length in [0, 1, 125, 126, 65_535, 65_536, 3_000_000] {
        let message = Message::binary(vec![7; length]);
        socket.send(message.clone()).await.unwrap();
        assert_eq!(next(&mut socket).await, message, "{length}");
        assert_eq!(told.recv().await.unwrap(), format!("binary {length}"));
    }
    // In three frames, with a ping between the second and the third.
    let part = |text: &'static str, code, last| {
        let frame = Frame::message(text, OpCode::Data(code), last);
        Message::Frame(frame)
    };
    socket.send(part("one ", Data::Text, false)).await.unwrap();
    socket
        .send(part("two ", Data::Continue, false))
        .await
        .unwrap();
    socket.send(Message::Ping("here?".into())).await.unwrap();
    socket
        .send(part("three", Data::Continue, true))
        .await
        .unwrap();
    assert_eq!(next(&mut socket).await, Message::Pong("here?".into()));
    assert_eq!(next(&mut socket).await, Message::text("one two three"));
    assert_eq!(told.recv().await.unwrap(), "ping");
    assert_eq!(told.recv().await.unwrap(), "text 13");

    socket.close(None).await.unwrap();
    assert!(next(&mut socket).await.is_close());
    assert!(timeout(LIMIT, socket.next()).await.unwrap().is_none());
    assert_eq!(told.recv().await.unwrap(), "Ok(Close(None))");
    assert_eq!(told.recv().await.unwrap(), "over");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_a_switch_both_ends_are_told_and_close_in_order() {
    let proxy = Proxy::start().await;
    let (old, mut told) = echo().await;
    proxy.publish(1, &[old]).await;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        let mut socket = open(&proxy).await;
        socket.send(Message::text("hi")).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::text("hi"));
        assert_eq!(told.recv().await.unwrap(), "text 2");
        sockets.push(socket);
    }
    // One is in the middle of a message of several frames.
    let half = Frame::message("half", OpCode::Data(Data::Text), false);
    sockets[0].send(Message::Frame(half)).await.unwrap();
    let (new, _) = echo().await;
    proxy.publish(2, &[new]).await;
    let window = Duration::from_millis(300);
    let drain = proxy.client.drain("app", 2, LIMIT, window);
    let clients = sockets.iter_mut().map(|socket| async move {
        assert_away(socket).await;
    });
    let (receipt, _) = tokio::join!(drain, futures_util::future::join_all(clients));
    let receipt = receipt.unwrap();
    assert_eq!(
        (receipt.websockets_closed, receipt.failed),
        (10, 0),
        "{receipt:?}"
    );
    let mut ends = Vec::new();
    for _ in 0..20 {
        ends.push(timeout(LIMIT, told.recv()).await.unwrap().unwrap());
    }
    let count = |what: &str| ends.iter().filter(|end| *end == what).count();
    assert_eq!((count("close 1001"), count("over")), (10, 10), "{ends:?}");
    proxy.stop().await;
}

/// Over TLS the end of the connection is said too, so that it cannot be taken for a cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_a_switch_closes_in_order_too() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["a.test".into()]).unwrap();
    let key = made.signing_key.serialize_pem();
    std::fs::write(folder.path().join("a.key"), key).unwrap();
    std::fs::write(folder.path().join("a.pem"), made.cert.pem()).unwrap();
    let certificates = folder.path().to_path_buf();
    let proxy = Proxy::start_with(|options| {
        options.https = Some("127.0.0.1:0".parse().unwrap());
        options.certificates = certificates;
    })
    .await;
    let (app, _told) = echo().await;
    proxy.publish(1, &[app]).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(proxy.https.unwrap()).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("a.test").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.unwrap();
    let (mut socket, _) = client_async("wss://a.test/ws", stream).await.unwrap();
    socket.send(Message::text("hi")).await.unwrap();
    let echo = timeout(LIMIT, socket.next()).await.unwrap();
    assert_eq!(echo.unwrap().unwrap(), Message::text("hi"));
    proxy.publish(2, &[]).await;
    let drain = proxy.client.drain("app", 2, LIMIT, Duration::ZERO);
    let end = async {
        let close = timeout(LIMIT, socket.next()).await.unwrap().unwrap();
        assert!(close.unwrap().is_close());
        let after = timeout(LIMIT, socket.next()).await.unwrap();
        assert!(after.is_none(), "{after:?}");
    };
    let (receipt, ()) = tokio::join!(drain, end);
    assert_eq!(receipt.unwrap().websockets_closed, 1);
    proxy.stop().await;
}

/// Whatever the client and the app speak, and both are told at a switch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_speaks_http2_gets_websockets_as_streams() {
    let proxy = Proxy::start().await;
    let (old, mut told) = echo_h2c(true).await;
    publish_h2c(&proxy, 1, old).await;
    let mut plain = open(&proxy).await;
    let asked = "CONNECT Some(\"websocket\") http://a.test/ws";
    assert_eq!(told.recv().await.unwrap(), asked);
    let mut multiplexed = open_http2(&proxy).await.unwrap();
    assert_eq!(told.recv().await.unwrap(), asked);
    for length in [0, 125, 65_536, 1_000_000] {
        let message = Message::binary(vec![7; length]);
        plain.send(message.clone()).await.unwrap();
        assert_eq!(next(&mut plain).await, message, "{length}");
        assert_eq!(told.recv().await.unwrap(), format!("binary {length}"));
        multiplexed.send(message.clone()).await.unwrap();
        assert_eq!(next(&mut multiplexed).await, message, "{length}");
        assert_eq!(told.recv().await.unwrap(), format!("binary {length}"));
    }
    // One that its client ends: it takes no part in the drain.
    let mut third = open(&proxy).await;
    assert_eq!(told.recv().await.unwrap(), asked);
    third.close(None).await.unwrap();
    assert!(next(&mut third).await.is_close());
    assert!(timeout(LIMIT, third.next()).await.unwrap().is_none());
    assert_eq!(told.recv().await.unwrap(), "Ok(Close(None))");
    assert_eq!(told.recv().await.unwrap(), "over");
    drop(third);
    let closed = async || proxy.client.stats().await.unwrap()[0].websockets == 2;
    assert!(soon(closed).await);

    let (new, mut new_told) = echo_h2c(true).await;
    publish_h2c(&proxy, 2, new).await;
    let drain = proxy
        .client
        .drain("app", 2, LIMIT, Duration::from_millis(100));
    let ends = async {
        assert_away(&mut plain).await;
        let close = next(&mut multiplexed).await;
        assert!(is_away(&close), "{close:?}");
    };
    let (receipt, ()) = tokio::join!(drain, ends);
    let receipt = receipt.unwrap();
    let ended = (receipt.websockets_closed, receipt.failed);
    assert_eq!(ended, (2, 0), "{receipt:?}");
    let mut ends = Vec::new();
    for _ in 0..4 {
        ends.push(timeout(LIMIT, told.recv()).await.unwrap().unwrap());
    }
    ends.sort();
    assert_eq!(ends, ["close 1001", "close 1001", "over", "over"]);
    open(&proxy).await;
    assert_eq!(new_told.recv().await.unwrap(), asked);
    proxy.stop().await;
}

fn is_away(message: &Message) -> bool {
    matches!(message, Message::Close(Some(close)) if close.code == CloseCode::Away)
}

async fn assert_away<S>(socket: &mut WebSocketStream<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let close = next(socket).await;
    assert!(is_away(&close), "{close:?}");
    let after = timeout(LIMIT, socket.next()).await.unwrap();
    assert!(after.is_none(), "{after:?}");
}

/// It is asked for nothing that it has not offered, and its answer is no success.
#[tokio::test]
async fn an_app_that_takes_no_websockets_over_http2_says_so() {
    let proxy = Proxy::start().await;
    let (app, mut told) = echo_h2c(false).await;
    publish_h2c(&proxy, 1, app).await;
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let refused = client_async("ws://a.test/ws", stream).await.unwrap_err();
    assert!(refused.to_string().contains("400"), "{refused}");
    let asked = told.recv().await.unwrap();
    assert!(asked.starts_with("GET None http://a.test/ws"), "{asked}");
    let refused = open_http2(&proxy).await.err();
    assert_eq!(refused, Some(StatusCode::BAD_REQUEST));
    proxy.stop().await;
}
