//! The forge is told the truth about each deployment, whatever the forge or the agent go through.

mod common;
mod forge_support;

use std::time::Duration;

use common::{APP, SETTINGS, Server};
use forge_support::{Forge, Mood, TOKEN};

/// A server whose app reports to `forge`.
async fn reporting(forge: &Forge, kind: &str) -> Server {
    let settings = format!("{SETTINGS}\n{}", forge.settings(kind));
    let mut server = Server::idle(&settings).await;
    server.set_env("REPORT_TOKEN", TOKEN);
    server.serve().await;
    server
}

/// Waits until a deployment's report of this kind is in one of these states; gives it.
async fn report(server: &Server, id: &str, kind: &str, state: &str) -> serde_json::Value {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let shown = server.api(&format!("/api/v1/deployments/{id}")).await;
        let reports = shown["reports"].as_array().cloned().unwrap_or_default();
        let mut found = reports.iter().filter(|report| report["kind"] == kind);
        if let Some(found) = found.find(|report| report["state"] == state) {
            return found.clone();
        }
        let late = tokio::time::Instant::now() > deadline;
        assert!(
            !late,
            "no {kind} is {state}: {reports:#?}\n{}",
            server.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn github_sees_pending_then_how_it_ended() {
    let forge = Forge::start().await;
    let mut server = reporting(&forge, "github").await;

    let live = server.go_live("v1").await;
    let states = forge.until_state(&live.commit.unwrap(), "success").await;
    assert!(states.len() >= 2, "{states:?}");
    let (last, before) = states.split_last().unwrap();
    assert_eq!(last, "success");
    assert!(before.iter().all(|state| state == "pending"), "{states:?}");

    let id = server.push("v2", "exit-at-start").await;
    let (failed, log) = server.ended(&id).await;
    assert_eq!(failed.state, "failed", "{log:#?}");
    let step = failed.error.unwrap().step.unwrap();
    let commit = failed.commit.unwrap();
    let states = forge.until_state(&commit, "failure").await;
    let (_, before) = states.split_last().unwrap();
    assert!(before.iter().all(|state| state == "pending"), "{states:?}");
    let last = forge.seen().pop().unwrap();
    assert_eq!(
        last.body["description"],
        format!("Failed at the step {step}")
    );
    assert_eq!(last.body["context"], format!("cutover/{APP}"));

    report(&server, &id, "status", "told").await;
    let shown = server.cutover(&["show", &id]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("Reported    status: failed\n"), "{shown}");
    forge.assert_all_right();
    assert!(!server.log().contains(TOKEN));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_delays_no_deployment_and_loses_nothing() {
    let mut forge = Forge::start().await;
    let mut server = reporting(&forge, "github").await;

    // Nobody listens.
    forge.down().await;
    let first = server.go_live("v1").await;
    report(&server, &first.id, "status", "waiting").await;

    // The agent is killed with the news unsent, and the forge comes back broken.
    server.agent().kill().await.unwrap();
    forge.set_mood(Mood::Failing(500, vec![]));
    forge.up().await;
    server.serve().await;
    let before = forge.asked();
    forge.until_asked(before + 2).await;

    // Then it never answers: a deployment goes on all the same.
    forge.set_mood(Mood::Silent(Duration::from_secs(60)));
    let asked = forge.asked();
    forge.until_asked(asked + 1).await;
    let second = server.go_live("v2").await;

    // Then it is up again, but wants a pause.
    server.agent().kill().await.unwrap();
    let pause = vec![("retry-after", "1".to_owned())];
    forge.set_mood(Mood::Failing(429, pause));
    server.serve().await;
    let asked = forge.asked();
    forge.until_asked(asked + 1).await;
    forge.set_mood(Mood::Well);
    for deployment in [first, second] {
        let states = forge
            .until_state(&deployment.commit.unwrap(), "success")
            .await;
        // What was overtaken is not sent late.
        assert_eq!(states, ["success"]);
        report(&server, &deployment.id, "status", "told").await;
    }
    forge.assert_all_right();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_shown_and_not_repeated() {
    let forge = Forge::start().await;
    forge.set_mood(Mood::Failing(401, vec![]));
    let mut server = reporting(&forge, "github").await;
    let live = server.go_live("v1").await;
    let told = report(&server, &live.id, "status", "refused").await;
    let error = told["error"].as_str().unwrap();
    assert!(error.contains("GitHub answered 401: not now"), "{error}");
    let shown = server.cutover(&["show", &live.id]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("status: live, not taken: GitHub answered 401"),
        "{shown}"
    );
    // At most one request for each of queued, running and live.
    assert!(forge.asked() <= 3, "{}", forge.asked());
    let warned = server.log().matches("the forge was not told").count();
    assert_eq!(warned, 1, "{}", server.log());
    server.stop().await;
}
