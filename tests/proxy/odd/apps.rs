//! What an app may do.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{GET, OK};
use crate::proxy::{Proxy, app, read_head, says};

/// An app that answers each request on a connection with `answer`, and says more `later`. It tells
/// when it has said everything.
async fn talks(
    answer: &'static str,
    later: &'static str,
) -> (std::net::SocketAddr, mpsc::UnboundedReceiver<()>) {
    let (tell, told) = mpsc::unbounded_channel();
    let address = app(move |mut stream| {
        let tell = tell.clone();
        async move {
            while !read_head(&mut stream).await.is_empty() {
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
                if !later.is_empty() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let _ = stream.write_all(later.as_bytes()).await;
                }
                let _ = tell.send(());
            }
        }
    })
    .await;
    (address, told)
}

/// Whatever an app says unasked on a connection, the next request does not get it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_asked_for_answers_nobody() {
    let proxy = Proxy::start().await;
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\
                HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let empty = "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n\
                 HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let unchanged = "HTTP/1.1 304 Not Modified\r\n\r\nevil";
    for (generation, (answer, later)) in (1..).zip([
        (both, ""),
        (OK, evil),
        (OK, "\r\n"),
        (empty, ""),
        (unchanged, ""),
    ]) {
        let (address, mut told) = talks(answer, later).await;
        proxy.publish(generation, &[address]).await;
        // On one connection of the client, so that the app's is used again.
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        for _ in 0..5 {
            stream.write_all(GET.as_bytes()).await.unwrap();
            // What comes after the next request has gone out cannot be told from its answer.
            told.recv().await.unwrap();
        }
        let last = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(last).await.unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert!(!all.contains("evil"), "{answer:?} {later:?}: {all}");
        assert_eq!(
            all.matches("HTTP/1.1 ").count(),
            6,
            "{answer:?} {later:?}: {all}"
        );
    }
    proxy.stop().await;
}

/// A body where none may be is not the beginning of the next answer.
#[tokio::test]
async fn the_body_of_an_answer_to_head_goes_nowhere() {
    let proxy = Proxy::start().await;
    proxy.publish(1, &[talks(OK, "").await.0]).await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    for _ in 0..3 {
        let head = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(head).await.unwrap();
        let answer = read_head(&mut stream).await;
        assert!(answer.ends_with("\r\n\r\n"), "{answer:?}");
    }
    proxy.stop().await;
}

/// An answer whose length is said in two ways is passed on in one, or not at all.
#[tokio::test]
async fn an_answer_that_could_be_read_two_ways_is_not_passed_on_as_it_is() {
    let proxy = Proxy::start().await;
    for (generation, answer) in (1..).zip([
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 999999 OK\r\n\r\n",
    ]) {
        proxy
            .publish(generation, &[says(answer, Duration::ZERO).await])
            .await;
        let got = proxy.get("/").await;
        let refused = got.starts_with("HTTP/1.1 502 ");
        // Chunks are read after the head: then the answer breaks off.
        let broken = got.starts_with("HTTP/1.1 200 ") && !got.ends_with("0\r\n\r\n");
        let chunked = answer.contains(": chunked\r\n");
        assert!(refused || (broken && chunked), "{answer:?}: {got:?}");
    }
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
                2\r\nok\r\n0\r\n\r\n";
    proxy.publish(50, &[says(both, Duration::ZERO).await]).await;
    let got = proxy.get("/").await.to_lowercase();
    let ways = ["content-length:", "transfer-encoding:"];
    let said = ways.iter().filter(|way| got.contains(**way)).count();
    assert_eq!(said, 1, "{got}");
    proxy.stop().await;
}

/// A client must be able to tell that an answer in chunks broke off.
#[tokio::test]
async fn half_an_answer_never_passes_for_a_whole_one() {
    let proxy = Proxy::start().await;
    for (generation, answer) in (1..).zip([
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    ]) {
        proxy
            .publish(generation, &[says(answer, Duration::ZERO).await])
            .await;
        let got = proxy.get("/").await;
        assert!(got.contains("half"), "{answer:?}: {got:?}");
        assert!(!got.ends_with("0\r\n\r\n"), "{answer:?}: {got:?}");
    }
    let stats = proxy.client.stats().await.unwrap();
    let closed: u64 = stats.iter().map(|route| route.failures.closed).sum();
    assert_eq!(closed, 3, "{stats:?}");
    proxy.stop().await;
}

/// A head without end is no reason to hold it all.
#[tokio::test]
async fn an_endless_head_is_refused() {
    let proxy = Proxy::start().await;
    let endless = app(|mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream
            .write_all(b"X: yyyyyyyyyyyyyyyyyyyyyyyy\r\n")
            .await
            .is_ok()
        {}
    })
    .await;
    proxy.publish(1, &[endless]).await;
    assert!(proxy.get("/").await.starts_with("HTTP/1.1 502 "));
    let interim = app(|mut stream| async move {
        read_head(&mut stream).await;
        let hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
        for _ in 0..1000 {
            if stream.write_all(hints).await.is_err() {
                return;
            }
        }
        let _ = stream.write_all(OK.as_bytes()).await;
    })
    .await;
    proxy.publish(2, &[interim]).await;
    assert!(proxy.get("/").await.starts_with("HTTP/1.1 200 "));
    proxy.stop().await;
}
