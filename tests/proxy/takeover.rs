//! A new proxy takes over from the one that runs, under load. `CUTOVER_TAKEOVERS=20` runs the full
//! number.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::time::Duration;

use crate::proxy::{Proxy, app, read_head, says, until_busy};
use crate::support::hello::Hello;
use crate::support::mix::Mix;
use crate::support::wait::{not_yet, soon};
use crate::version::App;
use bytes::Bytes;
use cutover::proxy::Options;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

/// An app that gives each answer only when it is told to.
async fn gated(answer: &'static str) -> (SocketAddr, Arc<Notify>) {
    let go_on = Arc::new(Notify::new());
    let told = go_on.clone();
    let address = app(move |mut stream| {
        let told = told.clone();
        async move {
            read_head(&mut stream).await;
            told.notified().await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address.await, go_on)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeovers_under_load_refuse_and_drop_nothing() {
    let takeovers = std::env::var("CUTOVER_TAKEOVERS").map_or(3, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut proxy = Proxy::start_in(folder.path().into(), |_| {}).await;
    let app = Hello::start(1).await;
    proxy.publish(1, &[app.address]).await;
    let mix = Mix::start(proxy.address, "a.test");
    let mut left = Vec::new();
    for generation in 2..takeovers + 2 {
        mix.until_more().await;
        let next = Proxy::start_in(folder.path().into(), |o| o.takeover = true).await;
        assert_eq!(next.address, proxy.address);
        assert_eq!(
            next.client.hello().await.unwrap().generation,
            generation - 1
        );
        next.publish(generation, &[app.address]).await;
        // The next one comes while this one still drains.
        left.push(std::mem::replace(&mut proxy, next).left());
    }
    futures_util::future::join_all(left).await;
    mix.until_more().await;
    let mixed = mix.stop().await;
    mixed.assert_whole();
    let mut applied = app.stop().await;
    let mut posted = mixed.report.posted.clone();
    applied.sort();
    posted.sort();
    assert_eq!(applied, posted, "every POST exactly once");
    assert!(mixed.going_away > 0 && mixed.events_ended > 0, "{mixed:?}");
    proxy.stop().await;
}

/// Two that both had the sockets would both stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_proxy_takes_over_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start_in(folder.path().into(), |_| {}).await;
    let take = async || {
        let socket = folder.path().join(cutover::proxy::control::SOCKET);
        let mut stream = UnixStream::connect(socket).await.unwrap();
        stream.write_all(b"\"takeover\"\n").await.unwrap();
        let mut answer = vec![0; 1024];
        let length = stream.read(&mut answer).await.unwrap();
        answer.truncate(length);
        (stream, String::from_utf8(answer).unwrap())
    };
    let (first, offered) = take().await;
    assert!(offered.starts_with("{\"done\""), "{offered}");
    let (_, refused) = take().await;
    assert!(
        refused.contains("another proxy is taking over"),
        "{refused}"
    );
    drop(first);
    assert!(soon(async || take().await.1.starts_with("{\"done\"")).await);
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_proxy_goes_where_its_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let old = Proxy::start_in(folder.path().into(), |_| {}).await;
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    old.publish(1, &[says(answer, Duration::ZERO).await]).await;
    let mut elsewhere = old.address;
    elsewhere.set_ip([127, 0, 0, 2].into());
    let next = Proxy::start_in(folder.path().into(), |options| {
        options.takeover = true;
        options.http = elsewhere;
    })
    .await;
    assert_eq!(next.address, elsewhere);
    assert!(next.get("/").await.ends_with("hello"));
    let former = old.address;
    old.left().await;
    assert!(TcpStream::connect(former).await.is_err());
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_requests_that_the_old_proxy_still_has() {
    let folder = tempfile::tempdir().unwrap();
    let old = Proxy::start_in(folder.path().into(), |_| {}).await;
    let hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    let (slow, go_on) = gated(hello).await;
    old.publish(1, &[slow]).await;
    let mut asking = TcpStream::connect(old.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    asking.write_all(request).await.unwrap();
    until_busy(&old).await;
    let new = Proxy::start_in(folder.path().into(), |o| o.takeover = true).await;
    new.publish(2, &[says(hello, Duration::ZERO).await]).await;
    let limit = Duration::from_secs(5);
    let mut drain = Box::pin(new.client.drain("app", 2, limit, limit));
    not_yet(&mut drain).await;
    go_on.notify_one();
    let receipt = drain.await.unwrap();
    assert_eq!((receipt.drained, receipt.failed), (1, 0), "{receipt:?}");
    // Done means done: the answer has been read from the app.
    let mut answer = String::new();
    let read = asking.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_millis(300), read)
        .await
        .expect("the answer is there, and the connection is closed after it")
        .unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    old.left().await;
    assert!(new.get("/").await.ends_with("hello"));
    new.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_new_one_breaks_off_the_old_one_goes_on() {
    let proxy = Proxy::start().await;
    let app = App::start(1).await;
    proxy.publish(1, &[app.address]).await;
    let mut broken = UnixStream::connect(proxy.folder.join("proxy.sock"))
        .await
        .unwrap();
    broken.write_all(b"\"takeover\"\n").await.unwrap();
    broken.read_u8().await.unwrap();
    // While it has the sockets nothing may be published, lest it be lost.
    let table = Default::default();
    let refused = proxy.client.publish(&table).await.unwrap_err();
    assert!(refused.to_string().contains("taking over"), "{refused}");
    drop(broken);
    let refused = async || proxy.client.publish(&table).await.unwrap_err().to_string();
    assert!(soon(async || !refused().await.contains("taking")).await);
    proxy.publish(2, &[app.address]).await;
    assert!(proxy.get("/").await.ends_with('1'));
    proxy.stop().await;
}

/// An HTTP/2 client is told before the old proxy leaves, and brings what follows to the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_clients_move_over_without_a_failed_request() {
    let folder = tempfile::tempdir().unwrap();
    let mut proxy = Proxy::start_in(folder.path().into(), |_| {}).await;
    let app = App::start(1).await;
    proxy.publish(1, &[app.address]).await;
    let address = proxy.address;
    let stop = Arc::new(AtomicBool::new(false));
    let client = |stop: Arc<AtomicBool>| async move {
        let (mut answered, mut connections) = (0, 0);
        while !stop.load(SeqCst) {
            let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
            let (mut sender, connection) = handshake.unwrap();
            tokio::spawn(connection);
            connections += 1;
            while !stop.load(SeqCst) && sender.ready().await.is_ok() {
                let ask = |path: &str| {
                    let body = Empty::<Bytes>::new();
                    let request = Request::get(format!("http://a.test{path}")).body(body);
                    sender.clone().send_request(request.unwrap())
                };
                let all = [ask("/slow"), ask("/"), ask("/")];
                for answer in futures_util::future::join_all(all).await {
                    match answer {
                        Ok(answer) => {
                            assert_eq!(answer.status(), 200);
                            answer.into_body().collect().await.unwrap();
                            answered += 1;
                        }
                        // Not sent, since the proxy has said that it leaves: asked again elsewhere.
                        Err(error) if error.is_canceled() => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            }
        }
        (answered, connections)
    };
    let clients: Vec<_> = (0..4).map(|_| tokio::spawn(client(stop.clone()))).collect();
    for generation in 2..5 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let next = Proxy::start_in(folder.path().into(), |o| o.takeover = true).await;
        next.publish(generation, &[app.address]).await;
        std::mem::replace(&mut proxy, next).left().await;
    }
    stop.store(true, SeqCst);
    for client in clients {
        let (answered, connections) = client.await.unwrap();
        assert!(answered > 3 && connections >= 3, "{answered} {connections}");
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_one_finishes_what_it_has_the_next_one_serves_already() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().to_path_buf();
    let old = Proxy::start_in(folder.clone(), |_| {}).await;
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let (slow, go_on) = gated(ok).await;
    old.publish(1, &[slow]).await;
    let address = old.address;
    let (mut stream, request) = (
        TcpStream::connect(address).await.unwrap(),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    stream.write_all(request).await.unwrap();
    until_busy(&old).await;

    old.client.stop().await.unwrap();
    assert!(old.client.hello().await.is_err(), "nobody adopts it");
    let new = Proxy::start_in(folder, |options| options.http = address).await;
    assert_eq!(new.client.hello().await.unwrap().generation, 1);
    // Once for the request that the old one has, and once for the new one's.
    go_on.notify_one();
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    go_on.notify_one();
    assert!(new.get("/").await.ends_with("ok"));
    old.left().await;
    assert_eq!(new.client.hello().await.unwrap().generation, 1);
    new.stop().await;
}

/// The old proxy goes on under its name, whatever the late one did to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_comes_too_late_leaves_the_old_one_with_its_name() {
    let proxy = Proxy::start_with(|options| options.handover = Duration::from_millis(300)).await;
    let app = App::start(1).await;
    proxy.publish(1, &[app.address]).await;
    let name = proxy.folder.join(cutover::proxy::control::SOCKET);
    let mut late = UnixStream::connect(&name).await.unwrap();
    late.write_all(b"\"takeover\"\n").await.unwrap();
    late.read_u8().await.unwrap();
    // It takes the name, as it does before it asks the old one to leave.
    let other = proxy.folder.join("late.sock");
    let held = tokio::net::UnixListener::bind(&other).unwrap();
    std::fs::rename(&other, &name).unwrap();
    let mut rest = Vec::new();
    late.read_to_end(&mut rest).await.unwrap();
    drop(held);
    assert!(soon(async || proxy.client.hello().await.is_ok()).await);
    proxy.publish(2, &[app.address]).await;
    assert!(proxy.get("/").await.ends_with('1'));
    proxy.stop().await;
}

/// One that takes so long to start that the old one has given up must not serve beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_starts_too_slowly_withdraws() {
    let proxy = Proxy::start_with(|options| options.handover = Duration::from_millis(300)).await;
    let app = App::start(1).await;
    proxy.publish(1, &[app.address]).await;
    // It waits for this file until somebody writes to it.
    let certificates = proxy.folder.join("slow");
    std::fs::create_dir(&certificates).unwrap();
    let file = certificates.join("a.pem");
    let made = std::process::Command::new("mkfifo").arg(&file).status();
    assert!(made.unwrap().success());
    let mut options = Options::new(proxy.address, None, proxy.folder.clone());
    options.takeover = true;
    options.certificates = certificates;
    let slow = tokio::spawn(cutover::proxy::run(options, std::future::pending()));
    // While one takes over no table can be published, not even the same; the old one has given up once
    // that is possible again.
    let table = proxy.client.table().await.unwrap();
    assert!(soon(async || proxy.client.publish(&table).await.is_err()).await);
    assert!(soon(async || proxy.client.publish(&table).await.is_ok()).await);
    let write = move || std::fs::OpenOptions::new().write(true).open(file).map(drop);
    tokio::task::spawn_blocking(write).await.unwrap().unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), slow).await;
    let ended = ended.expect("it withdraws").unwrap();
    assert!(ended.is_err());
    proxy.publish(2, &[app.address]).await;
    for _ in 0..20 {
        assert!(proxy.get("/").await.ends_with('1'));
    }
    proxy.stop().await;
}

/// The agent writes the answer where both read it, whichever the authority's request reaches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_is_answered_by_the_old_proxy_as_by_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    // Without TLS there are no certificates.
    let start = async |takeover| {
        let with_tls = |options: &mut Options| {
            options.https = Some("127.0.0.1:0".parse().unwrap());
            options.takeover = takeover;
        };
        Proxy::start_in(folder.path().into(), with_tls).await
    };
    let old = start(false).await;
    let app = App::start(1).await;
    old.publish(1, &[app.address]).await;
    // The old one has the connection, and half of the request.
    let mut stream = TcpStream::connect(old.address).await.unwrap();
    let head = "GET /.well-known/acme-challenge/token-1 HTTP/1.1\r\nHost: a.test\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    old.get("/").await;
    let new = start(true).await;
    assert_eq!(new.client.hello().await.unwrap().generation, 1);
    let challenges = folder.path().join("acme/challenges");
    std::fs::create_dir_all(&challenges).unwrap();
    std::fs::write(challenges.join("token-1"), "token-1.thumb").unwrap();
    let rest = "Connection: close\r\n\r\n";
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    let read = tokio::time::timeout(Duration::from_secs(10), read).await;
    assert!(read.is_ok(), "{answer}");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\ntoken-1.thumb"), "{answer}");
    let answer = new.get("/.well-known/acme-challenge/token-1").await;
    assert!(answer.ends_with("\r\n\r\ntoken-1.thumb"), "{answer}");
    old.left().await;
    new.stop().await;
}
