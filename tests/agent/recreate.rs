//! `strategy = "recreate"`: two releases never run at a time, requests wait, and what fails brings the old
//! release back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::UNIX_EPOCH;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use tokio::task::JoinHandle;

use crate::crash::agrees;
use crate::processes::rewrite;
use crate::server::{APP, SETTINGS, Server};
use crate::support::docker::docker;

fn settings(bake: &str, proxy: &str) -> String {
    let text = SETTINGS.replace(
        "bake = \"0s\"",
        &format!("bake = \"{bake}\"\nstrategy = \"recreate\""),
    );
    let text = text.replace("deadline = \"15s\"", "deadline = \"10s\"");
    // Tests of one program run beside each other, and a volume belongs to one agent.
    static COUNT: AtomicI64 = AtomicI64::new(0);
    let number = COUNT.fetch_add(1, SeqCst);
    let volume = format!("data-{number}-{}", std::process::id());
    format!("{text}volumes = [\"{volume}:/data\"]\n{proxy}")
}

/// Counts the app's containers that run, by Docker's own events.
struct Alone {
    most: Arc<AtomicI64>,
    task: JoinHandle<()>,
}

impl Alone {
    async fn watch(server: &Server) -> Self {
        let label = format!("cutover.data-dir={}", server.stage.data_dir.display());
        let filters = HashMap::from([
            ("label", vec![label.as_str()]),
            ("event", vec!["start", "die"]),
        ]);
        // The stream is only opened when it is first asked.
        let since = UNIX_EPOCH.elapsed().unwrap();
        let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        let options = EventsOptionsBuilder::new().filters(&filters).since(&since);
        let options = options.build();
        let mut events = docker().await.events(Some(options));
        let most = Arc::new(AtomicI64::new(0));
        let seen = most.clone();
        let task = tokio::spawn(async move {
            // One runs when it begins.
            let mut running = 1;
            while let Some(Ok(EventMessage { action, .. })) = events.next().await {
                running += if action.as_deref() == Some("start") {
                    1
                } else {
                    -1
                };
                seen.fetch_max(running, SeqCst);
            }
        });
        Self { most, task }
    }

    fn assert(self) {
        self.task.abort();
        assert_eq!(self.most.load(SeqCst), 1, "two at a time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_release_at_a_time_and_requests_wait() {
    let mut server = Server::with(&settings("0s", "")).await;
    server.go_live("v1").await;
    let load = server.load();
    load.until_more(20).await;
    let alone = Alone::watch(&server).await;
    server.go_live("v2").await;
    load.until_more(20).await;
    assert_eq!(server.version().await, "v2");

    // One that does not get healthy.
    let id = server.push("v3", "unhealthy").await;
    let (failed, log) = server.ended(&id).await;
    assert_eq!(failed.state, "failed", "{log:#?}\n{}", server.log());
    assert_eq!(failed.error.unwrap().code, "unhealthy");
    assert_eq!(server.version().await, "v2");
    load.until_more(20).await;

    let back = server
        .cutover(&["rollback", APP, "--follow"])
        .status()
        .unwrap();
    assert!(back.success(), "{}", server.log());
    assert_eq!(server.version().await, "v1");
    let restarted = server
        .cutover(&["restart", APP, "--follow"])
        .status()
        .unwrap();
    assert!(restarted.success(), "{}", server.log());
    load.until_more(20).await;
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    alone.assert();
    agrees(&server, "recreate").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_one_is_rolled_back_and_nothing_waits_for_ever() {
    let mut server = Server::with(&settings("60s", "[apps.hello.proxy]\nhold = \"300ms\"")).await;
    let first = server.push("v1", "").await;
    server.until_log(&first, "[drain]").await;
    let alone = Alone::watch(&server).await;
    let id = server.push("v2", "crash-after 1500").await;
    let (bad, log) = server.ended(&id).await;
    assert_eq!(bad.state, "rolled_back", "{log:#?}\n{}", server.log());
    // It was stopped: it gets nothing before it has been started and probed.
    let over = log.iter().any(|line| line.contains("every request again"));
    assert!(!over, "{log:#?}");
    let newest = format!("/api/v1/apps/{APP}/deployments?limit=1");
    let back = server.api(&newest).await["items"][0]["id"].clone();
    let (back, log) = server.ended(back.as_str().unwrap()).await;
    assert_eq!(back.state, "live", "{log:#?}\n{}", server.log());
    assert_eq!(server.version().await, "v1");

    let id = server.push("v3", "unhealthy").await;
    server.until_log(&id, "[probe] not healthy").await;
    let refused = server.get("/").await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    let (failed, log) = server.ended(&id).await;
    assert_eq!(failed.state, "failed", "{log:#?}\n{}", server.log());
    assert_eq!(server.version().await, "v1");
    alone.assert();
    agrees(&server, "rolled back").await;
    server.stop().await;
}

/// The old release of a bake still runs when deploy.toml begins to say that two must not.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_becomes_one_of_these_during_a_bake() {
    let before = settings("60s", "").replace("strategy = \"recreate\"", "");
    let mut server = Server::with(&before).await;
    let first = server.push("v1", "").await;
    server.until_log(&first, "[drain]").await;
    let second = server.push("v2", "").await;
    server.until_log(&second, "[drain]").await;
    let recreate = "bake = \"60s\"\nstrategy = \"recreate\"";
    rewrite(&server, "bake = \"60s\"", recreate);
    let reload = server.cutover(&["reload"]).status().unwrap();
    assert!(reload.success(), "{}", server.log());
    let load = server.load();
    load.until_more(20).await;
    let third = server.push("v3", "").await;
    server.until_log(&third, "[drain]").await;
    load.until_more(20).await;
    assert_eq!(server.version().await, "v3");
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    let (ended, log) = server.ended(&second).await;
    assert_eq!(ended.state, "live", "{log:#?}");
    agrees(&server, "switched over").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_for_it_to_the_end_whatever_the_file_says_by_then() {
    let mut server = Server::with(&settings("0s", "")).await;
    server.go_live("v1").await;
    let load = server.load();
    load.until_more(20).await;
    let id = server.push("v2", "slow-start 2000").await;
    server.until_log(&id, "the old version stops first").await;
    rewrite(&server, "strategy = \"recreate\"", "");
    let reload = server.cutover(&["reload"]).status().unwrap();
    assert!(reload.success(), "{}", server.log());
    let (ended, log) = server.ended(&id).await;
    assert_eq!(ended.state, "live", "{log:#?}");
    load.until_more(20).await;
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    server.stop().await;
}
