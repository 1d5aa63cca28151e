//! Which app and which of its targets a request reaches, and what is said where none answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::time::{Duration, Instant};

use crate::proxy::{Proxy, app, read_head, route, says};
use crate::support::wait::not_yet;
use cutover::proxy::table::{Page, Policy, Route, Table};
use tokio::io::AsyncWriteExt;

/// An app that answers with its name and the path that it saw.
async fn named(name: &'static str) -> SocketAddr {
    app(move |mut stream| async move {
        let head = read_head(&mut stream).await;
        let path = head.split(' ').nth(1).unwrap_or("");
        let prefix = head.split("x-forwarded-prefix: ").nth(1);
        let prefix = prefix.map_or("", |rest| rest.split("\r\n").next().unwrap());
        let text = format!("{name} {prefix}{path}");
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await
}

#[tokio::test]
async fn idle_targets_take_turns() {
    let proxy = Proxy::start().await;
    proxy
        .publish(1, &[named("one").await, named("two").await])
        .await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(proxy.get("/").await.ends_with("one /"));
    }
    assert_eq!(answers.iter().filter(|one| **one).count(), 2, "{answers:?}");
    proxy.stop().await;
}

/// An address that nobody listens at.
async fn nobody() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

async fn publish(proxy: &Proxy, table: Table) {
    proxy.client.publish(&table).await.unwrap();
}

async fn get(proxy: &Proxy, host: &str, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    proxy.raw(&request).await
}

#[tokio::test]
async fn the_longest_prefix_and_the_nearest_wildcard_win_and_a_prefix_is_stripped_where_wanted() {
    let proxy = Proxy::start().await;
    let mut routes = Vec::new();
    for (name, host, prefix, strip) in [
        ("site", "a.test", "/", false),
        ("api", "a.test", "/api", true),
        ("v2", "a.test", "/api/v2", false),
        ("wild", "*.a.test", "/", false),
        ("deep", "*.b.a.test", "/", false),
    ] {
        let mut one = route(name, 1, &[named(name).await]);
        one.hosts = vec![host.into()];
        one.path_prefix = prefix.into();
        one.policy.strip_prefix = strip;
        routes.push(one);
    }
    publish(&proxy, Table::new(1, routes)).await;
    for (host, path, expected) in [
        ("a.test", "/", "site /"),
        ("a.test", "/apis", "site /apis"),
        ("a.test", "/api", "api /api/"),
        ("a.test", "/api?x=/api", "api /api/?x=/api"),
        ("a.test", "/api/users?id=1", "api /api/users?id=1"),
        ("a.test", "/api//x", "api /api//x"),
        ("a.test", "/api/v2/x", "v2 /api/v2/x"),
        ("x.a.test:80", "/", "wild /"),
        ("x.b.a.test", "/", "deep /"),
    ] {
        let answer = get(&proxy, host, path).await;
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or("");
        assert_eq!(body, expected, "{host}{path}");
    }
    assert!(
        get(&proxy, "b.test", "/")
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    proxy.stop().await;
}

#[tokio::test]
async fn the_configured_pages_stand_in_for_the_proxys_own_sentences() {
    let proxy = Proxy::start().await;
    let html = |text: &str| Page {
        content_type: "text/html; charset=utf-8".into(),
        text: text.into(),
    };
    let broken = says("220 mail.example.com ESMTP\r\n", Duration::ZERO).await;
    let silent = says("", Duration::from_secs(60)).await;
    let mut routes = Vec::new();
    for (name, target) in [
        ("broken", broken),
        ("silent", silent),
        ("down", nobody().await),
    ] {
        let mut one = route(name, 1, &[target]);
        one.hosts = vec![format!("{name}.test")];
        one.policy.first_byte_timeout_ms = 100;
        routes.push(one);
    }
    routes[0].policy.pages.insert(502, html("<h1>oops</h1>"));
    let mut closed = routes[2].clone();
    closed.app = "closed".into();
    closed.hosts = vec!["closed.test".into()];
    closed.policy.maintenance = Some(html("<h1>back at noon</h1>"));
    routes.push(closed);
    let mut table = Table::new(1, routes);
    for (status, text) in [
        (404, "nobody"),
        (502, "not this one"),
        (503, "down"),
        (504, "slow"),
    ] {
        table.pages.insert(status, html(text));
    }
    publish(&proxy, table).await;
    for (host, status, text) in [
        ("other.test", 404, "nobody"),
        ("broken.test", 502, "<h1>oops</h1>"),
        ("down.test", 503, "down"),
        ("silent.test", 504, "slow"),
        ("closed.test", 503, "<h1>back at noon</h1>"),
    ] {
        let answer = get(&proxy, host, "/").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(
            answer.contains("content-type: text/html; charset=utf-8\r\n"),
            "{answer}"
        );
        assert_eq!(answer.contains("retry-after: "), status == 503, "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{text}")), "{answer}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_paused_app_s_requests_wait_until_it_goes_on_or_their_time_is_over() {
    let proxy = Proxy::start().await;
    let address = named("app").await;
    let paused = |generation, pause_ms| Route {
        policy: Policy {
            pause_ms,
            ..Default::default()
        },
        ..route("app", generation, &[address])
    };
    publish(&proxy, Table::new(1, vec![paused(1, 10_000)])).await;
    let mut waiting = Box::pin(proxy.get("/x"));
    not_yet(&mut waiting).await;
    let start = Instant::now();
    publish(&proxy, Table::new(2, vec![paused(2, 0)])).await;
    let answer = waiting.await;
    assert!(answer.ends_with("app /x"), "{answer}");
    assert!(start.elapsed() < Duration::from_secs(5), "it waited on");

    publish(&proxy, Table::new(3, vec![paused(3, 300)])).await;
    let start = Instant::now();
    assert!(proxy.get("/y").await.ends_with("app /y"));
    assert!(start.elapsed() >= Duration::from_millis(300));
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_where_the_fewest_are_under_way() {
    let proxy = Proxy::start().await;
    let most = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let mut targets = Vec::new();
    for which in 0..2 {
        let most = most.clone();
        let slow = app(move |mut stream| {
            let most = most.clone();
            async move {
                read_head(&mut stream).await;
                most[which].fetch_add(1, SeqCst);
                // Until all of them are there, wherever they went.
                while most[0].load(SeqCst) + most[1].load(SeqCst) < 8 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                let _ = stream.write_all(answer).await;
            }
        });
        targets.push(slow.await);
    }
    proxy.publish(1, &targets).await;
    for n in 0..8 {
        let address = proxy.address;
        tokio::spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
            stream.write_all(request).await.unwrap();
            read_head(&mut stream).await
        });
        let deadline = Instant::now() + Duration::from_secs(5);
        // One after the other: each is at its target before the next comes.
        while most[0].load(SeqCst) + most[1].load(SeqCst) <= n {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert_eq!([most[0].load(SeqCst), most[1].load(SeqCst)], [4, 4]);
    proxy.stop().await;
}

#[tokio::test]
async fn a_target_that_refuses_connections_costs_no_request_and_is_left_alone_for_a_while() {
    let proxy = Proxy::start().await;
    let good = named("good").await;
    proxy.publish(1, &[nobody().await, good]).await;
    for _ in 0..20 {
        assert!(proxy.get("/").await.ends_with("good /"));
    }
    let stats = &proxy.client.stats().await.unwrap()[0];
    assert_eq!(stats.failures.total(), 0, "{stats:?}");
    // It is asked again after a pause, not with every request.
    assert!((1..10).contains(&stats.retried), "{stats:?}");

    proxy.publish(2, &[nobody().await, nobody().await]).await;
    let answer = proxy.get("/").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("retry-after: "), "{answer}");
    proxy.stop().await;
}
