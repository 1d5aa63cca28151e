//! slowhttptest's attacks, all at once, beside clients who must not notice.

use cutover::proxy::Limits;
use tokio::process::Command;

use crate::proxy::{Proxy, route};
use crate::support::hello::Hello;
use crate::support::mix::Mix;
use crate::support::tool;
use crate::support::wait::soon;

const SECONDS: &str = "4";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_cost_the_others_nothing() {
    let Some(program) = tool::find("slowhttptest", "slowhttptest") else {
        return;
    };
    let proxy = Proxy::start_with(|options| {
        options.limits = Limits {
            head_ms: 1_000,
            idle_ms: 1_000,
            write_ms: 1_000,
            ..options.limits
        };
    })
    .await;
    let app = Hello::start(1).await;
    let mut table = cutover::proxy::table::Table {
        generation: 1,
        routes: vec![route("app", 1, &[app.address])],
        ..Default::default()
    };
    table.routes[0].policy.body_idle_timeout_ms = 1_000;
    proxy.client.publish(&table).await.unwrap();
    let mix = Mix::start(proxy.address, "a.test");
    let attack = |modes: &[&str], path: &str| {
        let mut command = Command::new(&program);
        command
            .args(modes)
            .args(["-c", "200", "-r", "200", "-l", SECONDS, "-p", "3"])
            .arg("-u")
            .arg(format!("http://{}{path}", proxy.address));
        async move { tool::output(&mut command).await.1 }
    };
    let big = "/stream?bytes=4000000&ms=0";
    let (head, body, read, range) = tokio::join!(
        attack(&["-H", "-i", "2"], "/"),
        attack(&["-B", "-i", "2", "-s", "8192"], "/upload"),
        attack(&["-X", "-n", "2", "-z", "16", "-w", "64", "-y", "128"], big),
        attack(&["-R"], "/"),
    );
    for said in [&head, &body, &read, &range] {
        // Without the colours: `ESC [ … m`.
        let plain: Vec<&str> = said.split("\u{1b}[").collect();
        let plain = plain
            .iter()
            .map(|part| part.split_once('m').map_or(*part, |p| p.1));
        let plain: String = plain.collect();
        assert!(plain.contains("service available:   YES"), "{plain}");
        assert!(!plain.contains("service available:   NO"), "{plain}");
    }
    let mixed = mix.stop().await;
    mixed.assert_whole();
    // Whoever is slow runs into a deadline, and is gone.
    let free = async || proxy.client.stats().await.unwrap()[0].in_flight == 0;
    assert!(soon(free).await, "some are held for ever");
    app.stop().await;
    proxy.stop().await;
}
