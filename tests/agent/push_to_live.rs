//! The main job, on real parts: a push goes live, a redeploy and a rollback too, and nobody who uses
//! the app notices; what does not work changes nothing.

use std::time::Duration;

use crate::server::{APP, File, SETTINGS, Server, files};
use http::Request;
use serde_json::{Value, json};

/// How long a switch may take until the load sees the new version.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn pushes_redeploys_and_rollbacks_drop_nothing() {
    let mut server = Server::start().await;
    let first = server.go_live("v1").await;
    assert!(first.current);
    let image = first.image.expect("a live deployment has an image");
    assert_eq!(
        image,
        format!("cutover/{APP}:{}", &first.commit.unwrap()[..12])
    );
    assert_eq!(server.version().await, "v1");

    let counter = server.counter().await;
    let load = server.load();
    assert!(load.until_version("v1", SOON).await);
    load.until_more(100).await;

    // A push.
    let second = server.go_live("v2").await;
    assert!(load.until_version("v2", SOON).await);
    load.until_more(100).await;
    let receipt = second.receipt.expect("a switch has a receipt");
    assert_eq!(receipt.failed, 0, "{receipt:?}");

    // A redeploy of what is live, by the API as curl does it.
    let token = server.token();
    let request = Request::post(format!("/api/v1/apps/{APP}/deployments?follow=true"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json");
    let answer = server.ask(request, "{}").await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(
        answer.text().lines().last(),
        Some("live"),
        "{}",
        answer.text()
    );

    // A rollback to the first image's tag.
    let body = json!({ "to": image }).to_string();
    let request = Request::post(format!("/api/v1/apps/{APP}/rollback?follow=true"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json");
    let answer = server.ask(request, body).await;
    assert_eq!(
        answer.text().lines().last(),
        Some("live"),
        "{}",
        answer.text()
    );
    assert!(load.until_version("v1", SOON).await);
    load.until_more(100).await;

    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{report}\n{}", server.log());
    counter.each_once(&report.posted).await;

    let list = server.api(&format!("/api/v1/apps/{APP}/deployments")).await;
    let newest = &list["items"][0];
    // A switch that takes milliseconds may meet no request, but not each of them.
    let items = list["items"].as_array().unwrap();
    let served = items
        .iter()
        .filter_map(|item| item["receipt"]["requests"].as_u64());
    assert!(served.sum::<u64>() > 0, "{list}");
    assert_eq!(newest["trigger"], "rollback", "{newest}");
    assert_eq!(newest["image"], image, "{newest}");
    assert_eq!(newest["current"], true, "{newest}");
    assert!(steps(newest).iter().all(|step| step != "build"), "{newest}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_leaves_the_old_release_serving() {
    let mut server = Server::with(&SETTINGS.replace("\"15s\"", "\"2s\"")).await;
    server.go_live("v1").await;
    let load = server.load();

    let no_dockerfile: Vec<_> = files("v2", "")
        .into_iter()
        .filter(|file| file.path != "Dockerfile")
        .collect();
    let broken_build = vec![File::new("Dockerfile", "FROM scratch\nCOPY not-there /\n")];
    let way_out = vec![File {
        mode: 0o120_000,
        ..File::new("Dockerfile", "../../../etc/passwd")
    }];
    for (files, step, word) in [
        (no_dockerfile, "build", "Dockerfile"),
        (broken_build, "build", "not-there"),
        (way_out, "build", "../../../etc/passwd"),
        (files("v5", "unhealthy"), "probe", "503"),
        (files("v6", "exit-at-start"), "probe", "flux capacitor"),
        (
            files("v7", "unhealthy\ncrash-after 300"),
            "probe",
            "dilithium",
        ),
    ] {
        let id = server.push_files(&files, word).await;
        let (deployment, log) = server.ended(&id).await;
        assert_eq!(deployment.state, "failed", "{word}: {log:#?}");
        assert!(!deployment.current);
        let error = deployment.error.expect("a failed deployment has an error");
        assert_eq!(error.step.as_deref(), Some(step), "{error:?}");
        let said = format!("{}\n{}", error.message, error.log_tail.join("\n"));
        assert!(said.contains(word), "{word}: {error:?}\n{log:#?}");
        assert_eq!(server.version().await, "v1");
    }

    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{report}\n{}", server.log());
    assert_eq!(report.versions.len(), 1, "{:?}", report.versions);

    // And the next good one goes live.
    server.go_live("v8").await;
    assert_eq!(server.version().await, "v8");
    server.stop().await;
}

fn steps(deployment: &Value) -> Vec<String> {
    let steps = deployment["steps"].as_array().cloned().unwrap_or_default();
    let name = |step: &Value| step["name"].as_str().unwrap_or_default().to_owned();
    steps.iter().map(name).collect()
}
