//! A pin keeps what is live, also from a push that is on its way when it is set.

use crate::server::{APP, SETTINGS, Server};
use crate::support::wait::soon;

async fn cutover(server: &Server, arguments: &[&str]) {
    let mut command = server.cutover(arguments);
    let done = tokio::task::spawn_blocking(move || command.output());
    let done = done.await.unwrap().unwrap();
    assert!(done.status.success(), "{arguments:?}: {done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_holds_against_a_push_that_is_on_its_way() {
    let mut server = Server::with(SETTINGS).await;
    server.go_live("v1").await;
    let on_its_way = server.push("v2", "slow-start 3000").await;
    server
        .until_log(&on_its_way, "[probe] not healthy yet")
        .await;
    cutover(&server, &["pin", APP, "--reason", "the fair"]).await;
    let (ended, log) = server.ended(&on_its_way).await;
    assert_eq!(ended.state, "skipped", "{log:#?}");
    let why = ended.error.unwrap();
    assert_eq!(why.code, "pinned");
    assert!(why.message.contains("the fair"), "{}", why.message);
    assert_eq!(server.version().await, "v1");
    crate::crash::agrees(&server, "pinned").await;

    // What a person asks for goes on.
    cutover(&server, &["deploy", APP, "--follow"]).await;
    assert_eq!(server.version().await, "v2");
    cutover(&server, &["unpin", APP]).await;
    server.go_live("v3").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_ends_what_waits_for_its_turn_to_build() {
    let mut server = Server::idle(SETTINGS).await;
    // As many as are built at once.
    let count = std::thread::available_parallelism().map_or(2, |it| it.get().max(2));
    let busy: Vec<_> = (0..count).map(|number| format!("busy{number}")).collect();
    let mut text = std::fs::read_to_string(&server.stage.config).unwrap();
    for app in &busy {
        text += &format!(
            "\n[apps.{app}]\nrepo = {:?}\nport = 1\ndomains = ['{app}.test']\nbuild.command = ['sleep', '1000']\n",
            server.stage.repo
        );
    }
    std::fs::write(&server.stage.config, text).unwrap();
    server.serve().await;
    server.go_live("v1").await;
    let mut building = Vec::new();
    for app in &busy {
        cutover(&server, &["deploy", app]).await;
        let path = format!("/api/v1/apps/{app}");
        let mut shown = serde_json::Value::Null;
        let is_so = soon(async || {
            shown = server.api(&path).await;
            shown["running"]["state"] == "building"
        });
        assert!(is_so.await, "{shown}");
        building.push(shown["running"]["id"].as_str().unwrap().to_owned());
    }
    let waiting = server.push("v2", "").await;
    server.until_log(&waiting, "waiting for").await;
    cutover(&server, &["pin", APP]).await;
    let (ended, log) = server.ended(&waiting).await;
    assert_eq!(ended.state, "skipped", "{log:#?}");
    assert_eq!(ended.error.unwrap().code, "pinned");
    for id in &building {
        cutover(&server, &["cancel", id]).await;
        assert_eq!(server.ended(id).await.0.state, "cancelled");
    }
    assert_eq!(server.version().await, "v1");
    server.stop().await;
}
