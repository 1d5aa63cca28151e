//! A pin keeps what is live, also from a push that is on its way when it is set.

use crate::server::{APP, SETTINGS, Server};

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
