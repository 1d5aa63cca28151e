//! Places for connections: idle ones make room when few are left.

use std::time::Duration;

use crate::proxy::{Proxy, says};
use crate::support::wait::soon;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// A connection from `client` that has had one answer, if it had any.
async fn asked(proxy: &Proxy, client: &str) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{client}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(proxy.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer).await {
            Ok(length @ 1..) => answer.extend_from_slice(&buffer[..length]),
            _ => return None,
        }
    }
    Some(stream)
}

/// Whether the proxy has closed it.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    let read = stream.read(&mut byte);
    let read = tokio::time::timeout(Duration::from_millis(5), read).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_idle_connections_of_whoever_has_the_most_make_room_for_others() {
    let proxy = Proxy::start_with(|options| options.max_connections = 16).await;
    proxy.publish(1, &[says(OK, Duration::ZERO).await]).await;
    let mut neighbour = asked(&proxy, "127.0.0.3").await.unwrap();
    let mut crowd = Vec::new();
    for _ in 0..12 {
        crowd.push(asked(&proxy, "127.0.0.2").await.unwrap());
    }
    // More than there are places, one after the other and each kept open.
    let mut others = Vec::new();
    for number in 10..22 {
        let client = format!("127.0.0.{number}");
        let served = soon(async || {
            let one = asked(&proxy, &client).await;
            let is_served = one.is_some();
            others.extend(one);
            is_served
        });
        assert!(served.await, "{client}");
    }
    let mut left = 0;
    for stream in &mut crowd {
        left += usize::from(!is_closed(stream).await);
    }
    assert!(left < 6, "{left} of the crowd's connections are left");
    assert!(!is_closed(&mut neighbour).await, "it has only one");
    proxy.stop().await;
}
