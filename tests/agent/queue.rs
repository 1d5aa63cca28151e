//! One deployment runs, at most one waits, the newest waiting one wins; and a person can stop what
//! has not been switched.

use crate::server::{APP, SETTINGS, Server};
use http::Request;

async fn cancel(server: &Server, id: &str) -> crate::support::demo::http::Answer {
    let request = Request::post(format!("/api/v1/deployments/{id}/cancel"))
        .header("authorization", format!("Bearer {}", server.token()));
    server.ask(request, "").await
}

/// A server on which no push stops another.
async fn patient() -> Server {
    let settings = SETTINGS.replace("bake = \"0s\"", "bake = \"0s\"\nsupersede = false");
    Server::with(&settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_waiting_push_wins_and_what_runs_can_be_cancelled() {
    let mut server = patient().await;
    let live = server.go_live("v1").await;

    let running = server.push("v2", "slow-start 60000").await;
    server.until_log(&running, "[probe] not healthy yet").await;
    let waited = server.push("v3", "").await;
    let newest = server.push("v4", "").await;
    let (waited, _) = server.ended(&waited).await;
    assert_eq!(waited.state, "superseded");
    assert!(waited.error.unwrap().message.contains(&newest));

    let answer = cancel(&server, &running).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let (cancelled, log) = server.ended(&running).await;
    assert_eq!(cancelled.state, "cancelled", "{log:#?}");
    let (newest, log) = server.ended(&newest).await;
    assert_eq!(newest.state, "live", "{log:#?}\n{}", server.log());
    assert_eq!(server.version().await, "v4");

    for over in [&live.id, &newest.id] {
        let answer = cancel(&server, over).await;
        assert_eq!(answer.status, 409, "{}", answer.text());
    }
    let unknown = cancel(&server, "d0000000000000").await;
    assert_eq!(unknown.status, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_can_be_cancelled_and_leaves_no_trace() {
    let mut server = patient().await;
    let running = server.push("v1", "slow-start 60000").await;
    server.until_log(&running, "[probe] not healthy yet").await;
    let waiting = server.push("v2", "").await;
    assert_eq!(cancel(&server, &waiting).await.status, 202);
    let (waiting, _) = server.ended(&waiting).await;
    assert_eq!(waiting.state, "cancelled");
    assert_eq!(cancel(&server, &running).await.status, 202);
    let (running, _) = server.ended(&running).await;
    assert_eq!(running.state, "cancelled");

    let app = server.api(&format!("/api/v1/apps/{APP}")).await;
    assert!(app["release"].is_null(), "{app:#}");
    let answer = server.get("/").await;
    assert_eq!(answer.status, 503, "nothing was ever live");
    server.stop().await;
}
