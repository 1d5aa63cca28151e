//! A route whose traffic two releases share.

use std::net::SocketAddr;
use std::time::Duration;

use cutover::proxy::control::{RouteStats, State};
use cutover::proxy::table::{Route, Share, Table};

use crate::proxy::{Proxy, route, says};

const OLD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nold";
const NEW: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nnew";

/// Shares `(release, generation, weight, target)`.
fn table(generation: u64, shares: &[(&str, u64, u32, SocketAddr)]) -> Table {
    let share = |&(release, generation, weight, target): &(&str, u64, u32, SocketAddr)| Share {
        weight,
        ..Share::whole(release, generation, vec![target])
    };
    let route = Route {
        shares: shares.iter().map(share).collect(),
        ..route("app", generation, &[])
    };
    Table::new(generation, vec![route])
}

/// How many of `requests` the new release answered; the old one answered the others.
async fn ask(proxy: &Proxy, requests: usize) -> usize {
    let mut new = 0;
    for _ in 0..requests {
        let response = proxy.get("/").await;
        new += usize::from(response.ends_with("new"));
        assert!(
            response.ends_with("new") || response.ends_with("old"),
            "{response}"
        );
    }
    new
}

async fn stats(proxy: &Proxy, release: &str) -> RouteStats {
    let stats = proxy.client.stats().await.unwrap();
    let mut of_release = stats.into_iter().filter(|stats| stats.release == release);
    let found = of_release.next().unwrap();
    assert_eq!(of_release.next(), None, "one object");
    found
}

#[tokio::test]
async fn each_share_gets_and_counts_its_part_and_is_drained_alone() {
    let proxy = Proxy::start().await;
    let old = says(OLD, Duration::ZERO).await;
    let new = says(NEW, Duration::ZERO).await;
    let publish = async |table: Table| proxy.client.publish(&table).await.unwrap();
    publish(table(1, &[("old", 1, 100, old)])).await;
    assert_eq!(ask(&proxy, 5).await, 0);

    publish(table(2, &[("old", 1, 90, old), ("new", 2, 10, new)])).await;
    assert_eq!(ask(&proxy, 100).await, 10);
    publish(table(3, &[("old", 1, 50, old), ("new", 2, 50, new)])).await;
    assert_eq!(ask(&proxy, 100).await, 50);
    assert_eq!(stats(&proxy, "old").await.requests, 5 + 90 + 50);
    assert_eq!(stats(&proxy, "new").await.requests, 10 + 50);

    publish(table(4, &[("old", 1, 100, old)])).await;
    let limit = Duration::from_secs(5);
    let receipt = proxy.client.drain("app", 4, limit, limit).await.unwrap();
    assert_eq!((receipt.failed, receipt.drained), (0, 0), "{receipt:?}");
    assert_eq!(stats(&proxy, "new").await.state, State::Drained);
    assert_eq!(ask(&proxy, 20).await, 0);
    let left = stats(&proxy, "old").await;
    assert_eq!(
        (left.state, left.requests),
        (State::Serving, 5 + 90 + 50 + 20)
    );
    proxy.stop().await;
}

#[tokio::test]
async fn both_shares_are_served_from_disk_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let old = says(OLD, Duration::ZERO).await;
    let new = says(NEW, Duration::ZERO).await;
    let proxy = Proxy::start_in(folder.path().into(), |_| {}).await;
    let both = table(2, &[("old", 1, 90, old), ("new", 2, 10, new)]);
    proxy.client.publish(&both).await.unwrap();
    proxy.stop().await;
    let proxy = Proxy::start_in(folder.path().into(), |_| {}).await;
    assert_eq!(ask(&proxy, 100).await, 10);
    proxy.stop().await;
}

#[tokio::test]
async fn a_share_that_is_down_costs_no_request() {
    let proxy = Proxy::start().await;
    let old = says(OLD, Duration::ZERO).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let both = table(2, &[("old", 1, 90, old), ("new", 2, 10, gone)]);
    proxy.client.publish(&both).await.unwrap();
    assert_eq!(ask(&proxy, 100).await, 0);
    assert_eq!(stats(&proxy, "old").await.requests, 100);
    let new = stats(&proxy, "new").await;
    assert_eq!(
        (new.requests, new.retried),
        (0, 10),
        "its failures are told"
    );
    proxy.stop().await;
}
