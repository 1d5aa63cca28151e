//! A switch under load drops nothing, although the old app is gone at once when the drain is done.
//! `CUTOVER_SWITCHES=100` runs the full number.

mod proxy_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::time::Duration;

use proxy_support::Proxy;
use proxy_support::load::{ask, get, post, slow};
use proxy_support::version::App;
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switches_under_load_lose_nothing_and_apply_every_post_once() {
    let switches = std::env::var("CUTOVER_SWITCHES").map_or(10, |n| n.parse().unwrap());
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
    for generation in 2..switches + 2 {
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
