//! A switch under load drops nothing, although the old app is a process that SIGTERM ends at once
//! when the drain is done. `CUTOVER_SWITCHES=100` runs the full number.

use std::net::SocketAddr;
use std::time::Duration;

use crate::proxy::{Proxy, read_head, route, says, until_busy};
use crate::support::hello::Hello;
use crate::support::mix::Mix;
use crate::support::wait::soon;
use crate::version::App;
use cutover::proxy::control::Receipt;
use cutover::proxy::table::Table;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
    let stuck = says("", Duration::from_secs(60)).await;
    let app = App::start(2).await;
    proxy.publish(1, &[stuck]).await;
    let waiting = tokio::spawn({
        let address = proxy.address;
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
            stream.write_all(request).await.unwrap();
            read_head(&mut stream).await
        }
    });
    // Until the request is on its way.
    until_busy(&proxy).await;
    let (requests, websockets) = (Duration::from_millis(200), Duration::ZERO);
    let early = proxy.client.drain("app", 2, requests, websockets).await;
    assert!(early.unwrap_err().to_string().contains("is still live"));

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

/// Sends a GET for `host` that the app takes its time for.
async fn slow(proxy: &Proxy, host: &str, ms: u64) -> tokio::task::JoinHandle<String> {
    let in_flight = async || {
        let stats = proxy.client.stats().await.unwrap();
        stats.iter().map(|route| route.in_flight).sum::<u64>()
    };
    let before = in_flight().await;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let get = format!("GET /slow?ms={ms} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(get.as_bytes()).await.unwrap();
    assert!(soon(async || in_flight().await > before).await);
    tokio::spawn(async move {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    })
}

/// Faster than anything drains: each request stays with the release that it came to, and one drain
/// waits for them all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switches_may_overlap() {
    let proxy = Proxy::start().await;
    let mut apps = Vec::new();
    let mut waiting = Vec::new();
    for generation in 1..=4 {
        let app = Hello::start(generation).await;
        proxy.publish(generation, &[app.address]).await;
        waiting.push(slow(&proxy, "a", 1_500).await);
        apps.push(app);
    }
    let limit = Duration::from_secs(10);
    let (third, fourth) = tokio::join!(
        proxy.client.drain("app", 3, limit, limit),
        proxy.client.drain("app", 4, limit, limit),
    );
    let (third, fourth) = (third.unwrap(), fourth.unwrap());
    assert_eq!((third.failed, fourth.failed), (0, 0));
    assert_eq!(third.drained + fourth.drained, 3, "{third:?} {fourth:?}");
    for app in apps.drain(..3) {
        app.stop().await;
    }
    for (waiting, generation) in waiting.into_iter().zip(1..) {
        let answer = waiting.await.unwrap();
        let expected = format!("slowly from {generation}");
        assert!(answer.contains(&expected), "{answer}");
    }
    proxy.stop().await;
}

/// As when a release is switched to again that runs already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_to_the_same_target_costs_nothing_either() {
    let proxy = Proxy::start().await;
    let app = Hello::start(1).await;
    proxy.publish(1, &[app.address]).await;
    let mix = Mix::start(proxy.address, "a.test");
    for generation in 2..5 {
        mix.until_more().await;
        proxy.publish(generation, &[app.address]).await;
        let (limit, window) = (Duration::from_secs(10), Duration::from_millis(50));
        let drain = proxy.client.drain("app", generation, limit, window);
        assert_eq!(drain.await.unwrap().failed, 0);
    }
    let mixed = mix.stop().await;
    mixed.assert_whole();
    let mut applied = app.stop().await;
    let mut posted = mixed.report.posted.clone();
    applied.sort();
    posted.sort();
    assert_eq!(applied, posted, "every POST exactly once");
    proxy.stop().await;
}

/// Docker gives a container the address that another one had a moment ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_another_app_gets_brings_no_request_to_the_wrong_one() {
    let proxy = Proxy::start().await;
    let publish = async |generation, routes: &[(&str, u64, SocketAddr)]| {
        let route = |&(app, generation, target): &(&str, u64, SocketAddr)| {
            let mut route = route(app, generation, &[target]);
            route.hosts = vec![format!("{app}.test")];
            route
        };
        let table = Table {
            generation,
            routes: routes.iter().map(route).collect(),
            ..Default::default()
        };
        proxy.client.publish(&table).await.unwrap();
    };
    let mut a = Hello::start(1).await;
    publish(1, &[("a", 1, a.address)]).await;
    let mix = Mix::start(proxy.address, "a.test");
    for generation in (2..8).step_by(2) {
        mix.until_more().await;
        let reused = a.address;
        let next = Hello::start(generation).await;
        publish(generation, &[("a", generation, next.address)]).await;
        mix.switched_to(generation);
        let (limit, window) = (Duration::from_secs(10), Duration::from_millis(50));
        let drain = proxy.client.drain("a", generation, limit, window);
        assert_eq!(drain.await.unwrap().failed, 0);
        std::mem::replace(&mut a, next).stop().await;
        // An answer of version 0 would be older than any that the mix takes.
        let b = Hello::start_at(0, reused.port()).await;
        assert_eq!(b.address, reused);
        let both = [("a", generation, a.address), ("b", generation + 1, reused)];
        publish(generation + 1, &both).await;
        let get = "GET / HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n";
        assert!(proxy.raw(get).await.contains("Hello from 0"));
        mix.until_more().await;
        b.stop().await;
    }
    let mixed = mix.stop().await;
    mixed.assert_whole();
    let versions: Vec<_> = mixed
        .report
        .versions
        .iter()
        .map(|(v, _)| v.as_str())
        .collect();
    assert!(!versions.contains(&"0"), "{versions:?}");
    a.stop().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_two_apps_claim_a_host_the_newer_one_has_it() {
    let proxy = Proxy::start().await;
    let (old, new) = (App::start(1).await, App::start(2).await);
    let mut routes = vec![
        route("new", 2, &[new.address]),
        route("old", 1, &[old.address]),
    ];
    for generation in 1..3 {
        routes
            .iter_mut()
            .for_each(|r| r.hosts = vec!["a.test".into()]);
        routes.reverse();
        let table = Table {
            generation,
            routes: routes.clone(),
            ..Default::default()
        };
        proxy.client.publish(&table).await.unwrap();
        assert!(proxy.get("/").await.ends_with('2'));
    }
    proxy.stop().await;
}

/// Several instances on either side, and one of them dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_of_several_instances_is_switched_as_one() {
    let proxy = Proxy::start().await;
    let pair = async |version| [Hello::start(version).await, Hello::start(version).await];
    let mut apps = pair(1).await;
    let addresses = |apps: &[Hello; 2]| [apps[0].address, apps[1].address];
    proxy.publish(1, &addresses(&apps)).await;
    let mix = Mix::start(proxy.address, "a.test");
    let mut applied = Vec::new();
    for generation in 2..5 {
        mix.until_more().await;
        let next = pair(generation).await;
        proxy.publish(generation, &addresses(&next)).await;
        mix.switched_to(generation);
        let (limit, window) = (Duration::from_secs(10), Duration::from_millis(100));
        let drain = proxy.client.drain("app", generation, limit, window);
        assert_eq!(drain.await.unwrap().failed, 0);
        for old in std::mem::replace(&mut apps, next) {
            applied.extend(old.stop().await);
        }
    }
    let mixed = mix.stop().await;
    let [one, other] = apps;
    applied.extend(one.stop().await);
    // What is asked now goes to the one that is left.
    for _ in 0..10 {
        assert!(proxy.get("/").await.contains("Hello from 4"));
    }
    applied.extend(other.stop().await);
    mixed.assert_whole();
    let mut posted = mixed.report.posted.clone();
    applied.sort();
    posted.sort();
    assert_eq!(applied, posted, "every POST exactly once");
    proxy.stop().await;
}
