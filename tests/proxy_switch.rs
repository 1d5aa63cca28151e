//! A switch under load drops nothing, although the old app is a process that SIGTERM ends at once
//! when the drain is done. `CUTOVER_SWITCHES=100` runs the full number.

mod proxy_support;

use std::time::Duration;

use cutover::proxy::control::Receipt;
use proxy_support::Proxy;
use proxy_support::hello::Hello;
use proxy_support::mix::Mix;
use proxy_support::version::App;
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switches_under_load_lose_nothing_and_apply_every_post_once() {
    let switches = std::env::var("CUTOVER_SWITCHES").map_or(10, |n| n.parse().unwrap());
    let proxy = Proxy::start().await;
    let mut app = Hello::start(1).await;
    proxy.publish(1, &[app.address]).await;
    let mix = Mix::start(proxy.address, "a.test");

    let mut applied = Vec::new();
    let mut sum = Receipt::default();
    for generation in 2..switches + 2 {
        mix.until_more().await;
        let next = Hello::start(generation).await;
        proxy.publish(generation, &[next.address]).await;
        mix.switched_to(generation);
        let (limit, window) = (Duration::from_secs(10), Duration::from_millis(100));
        let drain = proxy.client.drain("app", generation, limit, window);
        let receipt = drain.await.unwrap();
        assert_eq!(receipt.failed, 0, "{receipt:?}");
        sum.drained += receipt.drained;
        sum.requests += receipt.requests;
        sum.websockets_closed += receipt.websockets_closed;
        let old = std::mem::replace(&mut app, next);
        applied.extend(old.stop().await);
    }
    let mixed = mix.stop().await;
    applied.extend(app.stop().await);
    mixed.assert_whole();
    let mut posted = mixed.report.posted.clone();
    applied.sort();
    posted.sort();
    assert_eq!(applied, posted, "every POST exactly once");
    assert!(
        sum.drained >= switches && sum.requests > sum.drained,
        "{sum:?}"
    );
    assert_eq!(sum.websockets_closed, mixed.going_away, "{sum:?}");
    assert!(
        mixed.going_away >= switches && mixed.events_ended >= switches,
        "{mixed:?}"
    );
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
