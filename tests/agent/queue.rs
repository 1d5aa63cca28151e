//! One deployment runs, at most one waits, the newest waiting one wins; and a person can stop what
//! has not been switched.

use crate::server::{APP, SETTINGS, Server, files};
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
    let front = format!("waiting for deployment `{running}` to finish");
    server.until_log(&waited, &front).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_that_was_answered_outlives_the_agent() {
    let mut server = patient().await;
    server.set_env("CUTOVER_KILL_AT", "undone");
    server.stop().await;
    server.serve().await;
    let id = server.push("v1", "slow-start 60000").await;
    server.until_log(&id, "[probe] not healthy yet").await;
    assert_eq!(cancel(&server, &id).await.status, 202);
    server.agent().ended().await.unwrap();

    server.set_env("CUTOVER_KILL_AT", "");
    server.serve().await;
    let (cancelled, log) = server.ended(&id).await;
    assert_eq!(cancelled.state, "cancelled", "{log:#?}\n{}", server.log());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_probed_keeps_no_other_from_being_built() {
    let mut server = Server::idle(SETTINGS).await;
    let repo = server.stage.repo.display().to_string();
    let many = std::thread::available_parallelism().map_or(2, |n| n.get().max(2)) + 1;
    let apps: Vec<_> = (0..many).map(|number| format!("app-{number}")).collect();
    let mut text = std::fs::read_to_string(&server.stage.config).unwrap();
    for app in &apps {
        text.push_str(&format!(
            "\n[apps.{app}]\nrepo = {repo:?}\nport = 8080\ndomains = [\"{app}.test\"]\n"
        ));
    }
    std::fs::write(&server.stage.config, text).unwrap();
    let slow = files("v1", "slow-start 60000");
    server.stage.commit("main", &slow, "v1").unwrap();
    server.serve().await;
    for app in &apps {
        let request = Request::post(format!("/api/v1/apps/{app}/deployments"))
            .header("authorization", format!("Bearer {}", server.token()));
        let queued = server.ask(request, "").await.json();
        let id = queued["id"].as_str().unwrap_or_else(|| panic!("{queued}"));
        server.until_log(id, "[probe] not healthy yet").await;
    }
    server.stop().await;
}
