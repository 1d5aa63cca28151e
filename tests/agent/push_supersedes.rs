//! A newer push stops what an older one has under way, up to the switch, and nothing that a person
//! asked for.

use crate::server::{APP, File, SETTINGS, Server, files};
use crate::support::demo::forge;
use crate::support::tool;
use serde_json::Value;

/// The sample app, whose build or start goes on for a minute.
fn slow_build(version: &str) -> Option<Vec<File>> {
    let busybox = std::fs::read("/bin/busybox").ok()?;
    let mut files = files(version, "");
    let dockerfile = files.iter_mut().find(|file| file.path == "Dockerfile")?;
    dockerfile.bytes =
        b"FROM scratch\nCOPY busybox /busybox\nRUN [\"/busybox\", \"sleep\", \"60\"]\n\
        COPY hello version behaviour /\nENTRYPOINT [\"/hello\"]\n"
            .to_vec();
    files.push(File {
        mode: 0o100_755,
        ..File::new("busybox", busybox)
    });
    Some(files)
}

/// Panics unless the deployment was superseded by `newer`.
async fn superseded(server: &Server, id: &str, newer: &str) {
    let (ended, log) = server.ended(id).await;
    assert_eq!(ended.state, "superseded", "{:?} {log:#?}", ended.error);
    let error = ended.error.unwrap();
    assert_eq!(error.code, "superseded");
    assert!(error.message.contains(newer), "{}", error.message);
}

async fn live(server: &Server, id: &str) {
    let (ended, log) = server.ended(id).await;
    assert_eq!(ended.state, "live", "{log:#?}\n{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_push_stops_a_build_and_a_probe_but_no_redeploy() {
    let Some(slow) = slow_build("v1") else {
        tool::skip("there is no /bin/busybox (apt-get install busybox-static)");
        return;
    };
    let mut server = Server::with(SETTINGS).await;
    let building = server.push_files(&slow, "v1").await;
    server.until_log(&building, "sleep").await;
    let begun = std::time::Instant::now();
    let probing = server.push("v2", "slow-start 60000").await;
    superseded(&server, &building, &probing).await;
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
    server.until_log(&probing, "[probe] not healthy yet").await;
    let newest = server.push("v3", "").await;
    superseded(&server, &probing, &newest).await;
    live(&server, &newest).await;
    assert_eq!(server.version().await, "v3");

    // What a person asked for goes on; the push waits for it.
    let (_, slow) = server
        .stage
        .commit("by-hand", &files("v4", "slow-start 4000"), "v4")
        .unwrap();
    let body = serde_json::json!({ "ref": slow });
    let path = format!("/api/v1/apps/{APP}/deployments");
    let asked = server.stage.client().post(&path, &body).await;
    let asked: Value = asked.unwrap_or_else(|error| panic!("{error}"));
    let by_hand = asked["id"].as_str().unwrap();
    server.until_log(by_hand, "[probe] not healthy yet").await;
    let pushed = server.push("v5", "").await;
    live(&server, by_hand).await;
    live(&server, &pushed).await;
    assert_eq!(server.version().await, "v5");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_one_is_stopped_for_another_the_other_goes_live() {
    let mut server = Server::idle(SETTINGS).await;
    server.set_env("CUTOVER_KILL_AT", "undoing");
    server.serve().await;
    let older = server.push("v1", "slow-start 60000").await;
    server.until_log(&older, "[probe] not healthy yet").await;
    let newer = server.push("v2", "").await;
    server.agent().ended().await.unwrap();

    server.set_env("CUTOVER_KILL_AT", "");
    server.serve().await;
    superseded(&server, &older, &newer).await;
    live(&server, &newer).await;
    assert_eq!(server.version().await, "v2");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn told_not_to_it_stops_nothing() {
    let settings = SETTINGS.replace("bake = \"0s\"", "bake = \"0s\"\nsupersede = false");
    let mut server = Server::with(&settings).await;
    let older = server.push("v1", "slow-start 4000").await;
    server.until_log(&older, "[probe] not healthy yet").await;
    let newer = server.push("v2", "").await;
    live(&server, &older).await;
    live(&server, &newer).await;
    server.stop().await;
}

/// The bad commit's own build went on, since what was pushed back is live already.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_back_to_what_is_live_stops_what_is_on_its_way() {
    let mut server = Server::with(SETTINGS).await;
    let good = server.go_live("v1").await.commit.unwrap();
    let bad = server.push("v2", "slow-start 60000").await;
    server.until_log(&bad, "[probe] not healthy yet").await;
    let repo = git2::Repository::open_bare(&server.stage.repo).unwrap();
    let tip = repo.refname_to_id("refs/heads/main").unwrap().to_string();
    let good_id = git2::Oid::from_str(&good).unwrap();
    repo.reference("refs/heads/main", good_id, true, "back")
        .unwrap();
    let payload = forge::payload("refs/heads/main", &tip, &good, "v1");
    let address = server.agent().address;
    let pushed = forge::deliver(address, APP, &server.stage.secret, "push", &payload).await;
    let pushed = pushed.unwrap().json()["deployment"].clone();
    let pushed = pushed.as_str().unwrap();
    superseded(&server, &bad, pushed).await;
    let (ended, log) = server.ended(pushed).await;
    assert_eq!(ended.state, "skipped", "{log:#?}");
    assert_eq!(server.version().await, "v1");
    server.stop().await;
}

/// Who goes back waited for a build, and what it built went live first.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_stops_what_is_on_its_way() {
    let mut server = Server::with(SETTINGS).await;
    server.go_live("v1").await;
    server.go_live("v2").await;
    let bad = server.push("v3", "slow-start 60000").await;
    server.until_log(&bad, "[probe] not healthy yet").await;
    let back = ["rollback", APP, "--follow"];
    let back = server.cutover(&back).status().unwrap();
    assert!(back.success(), "{}", server.log());
    assert_eq!(server.version().await, "v1");
    let (ended, log) = server.ended(&bad).await;
    assert_eq!(ended.state, "superseded", "{log:#?}");
    server.stop().await;
}
