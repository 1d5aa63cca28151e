//! Connects that get no answer: a container that has vanished refuses nothing.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use cutover::proxy::control::Client;
use cutover::proxy::table::{Policy, Route, Share, Table};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt;

use crate::proxy::{Proxy, app, read_head, route, says, until_busy};
use crate::support::wait::{not_yet, soon};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
const OLD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nold";

/// An address at which connects stay unanswered, for as long as the other value exists: the queue of
/// connections that nobody accepts is full.
fn silent() -> (SocketAddr, (TcpListener, Vec<TcpStream>)) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let quickly = Duration::from_millis(50);
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, quickly) {
        queued.push(stream);
    }
    (address, (listener, queued))
}

/// A proxy that has been asked for `/`, and connects to a silent target.
macro_rules! connecting {
    ($proxy:ident, $asked:ident, $policy:expr) => {
        let $proxy = Proxy::start().await;
        let (silent, _held) = silent();
        let policy: Policy = $policy;
        let first = Route {
            policy,
            ..route("app", 1, &[silent])
        };
        let table = Table::new(1, vec![first]);
        $proxy.client.publish(&table).await.unwrap();
        let mut $asked = Box::pin($proxy.get("/"));
        not_yet(&mut $asked).await;
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_target_is_taken_away_the_request_goes_on_to_another_one_at_once() {
    connecting!(proxy, asked, Policy::default());
    let begun = Instant::now();
    proxy.publish(2, &[says(OK, Duration::ZERO).await]).await;
    let answer = asked.await;
    assert!(answer.ends_with("ok"), "{answer}");
    assert!(begun.elapsed() < Duration::from_millis(500), "{begun:?}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_no_target_is_left_it_is_told_at_once() {
    connecting!(proxy, asked, Policy::default());
    let begun = Instant::now();
    proxy.publish(2, &[]).await;
    let answer = asked.await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(begun.elapsed() < Duration::from_millis(500), "{begun:?}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_no_target_is_left_it_waits_where_requests_wait() {
    let holds = || Policy {
        hold_ms: 10_000,
        ..Default::default()
    };
    connecting!(proxy, asked, holds());
    let next = |generation, targets: &[SocketAddr]| {
        let route = Route {
            policy: holds(),
            ..route("app", generation, targets)
        };
        Table::new(generation, vec![route])
    };
    proxy.client.publish(&next(2, &[])).await.unwrap();
    not_yet(&mut asked).await;
    // Nobody need wait for it.
    let drain = proxy.client.drain("app", 2, Duration::ZERO, Duration::ZERO);
    drain.await.unwrap();
    let good = says(OK, Duration::ZERO).await;
    proxy.client.publish(&next(3, &[good])).await.unwrap();
    let answer = asked.await;
    assert!(answer.ends_with("ok"), "{answer}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_s_deadline_ends_it() {
    let slow = Policy {
        connect_timeout_ms: 60_000,
        ..Default::default()
    };
    connecting!(proxy, asked, slow);
    // The app's route is gone: there is nowhere to go on to.
    proxy.client.publish(&Table::new(2, vec![])).await.unwrap();
    not_yet(&mut asked).await;
    let begun = Instant::now();
    let limit = Duration::from_millis(200);
    let receipt = proxy.client.drain("app", 2, limit, limit).await.unwrap();
    assert_eq!((receipt.drained, receipt.failed), (1, 1), "{receipt:?}");
    let answer = asked.await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{begun:?}");
    proxy.stop().await;
}

/// A table in which `new` is watched while `old` is warm.
fn watched(new: SocketAddr, old: SocketAddr) -> Table {
    let watched = Route {
        warm: Some(Share::whole("r1", 1, vec![old])),
        ..route("app", 2, &[new])
    };
    Table::new(2, vec![watched])
}

async fn post(proxy: &Proxy) -> String {
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    proxy.raw(request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_release_in_its_bake_does_not_accept_goes_to_the_one_before() {
    let proxy = Proxy::start().await;
    let old = says(OLD, Duration::ZERO).await;
    proxy.publish(1, &[old]).await;
    let refuses = TcpListener::bind("127.0.0.1:0").unwrap();
    let new = refuses.local_addr().unwrap();
    drop(refuses);
    proxy.client.publish(&watched(new, old)).await.unwrap();
    let get = proxy.get("/").await;
    assert!(get.ends_with("old"), "{get}");
    let post = post(&proxy).await;
    assert!(post.ends_with("old"), "nothing was sent: {post}");
    assert_eq!(failed(&proxy.client).await, 0);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_release_in_its_bake_breaks_goes_to_the_one_before_if_it_may_be_sent_twice() {
    let proxy = Proxy::start().await;
    let old = says(OLD, Duration::ZERO).await;
    proxy.publish(1, &[old]).await;
    let breaks = app(|mut stream| async move {
        read_head(&mut stream).await;
    });
    proxy
        .client
        .publish(&watched(breaks.await, old))
        .await
        .unwrap();
    let get = proxy.get("/").await;
    assert!(get.ends_with("old"), "{get}");
    let post = post(&proxy).await;
    assert!(post.starts_with("HTTP/1.1 502 "), "{post}");
    assert_eq!(failed(&proxy.client).await, 1);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_old_release_had_is_drained_although_it_is_warm() {
    let proxy = Proxy::start().await;
    let slow = app(|mut stream| async move {
        let head = read_head(&mut stream).await;
        if head.starts_with("GET /slow ") {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let _ = stream.write_all(OLD.as_bytes()).await;
    });
    let old = slow.await;
    proxy.publish(1, &[old]).await;
    let mut asked = Box::pin(proxy.get("/slow"));
    not_yet(&mut asked).await;
    until_busy(&proxy).await;
    let new = says(OK, Duration::ZERO).await;
    proxy.client.publish(&watched(new, old)).await.unwrap();
    let limit = Duration::from_secs(5);
    let drain = proxy.client.drain("app", 2, limit, limit);
    let (answer, receipt) = tokio::join!(asked, drain);
    assert!(answer.ends_with("old"), "{answer}");
    assert_eq!(receipt.unwrap().drained, 1);
    assert!(proxy.get("/").await.ends_with("ok"));

    // When the bake is over, the warm one is drained too.
    let over = Table::new(3, vec![route("app", 2, &[new])]);
    proxy.client.publish(&over).await.unwrap();
    proxy.client.drain("app", 2, limit, limit).await.unwrap();
    assert!(soon(async || proxy.get("/").await.ends_with("ok")).await);
    proxy.stop().await;
}

async fn failed(client: &Client) -> u64 {
    let stats = client.stats().await.unwrap();
    stats.iter().map(|share| share.failures.total()).sum()
}
