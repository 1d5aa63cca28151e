//! What deploy.toml says of the proxy reaches it: replicas as targets, and on SIGHUP how an app's
//! requests are treated.

use crate::server::{SETTINGS, Server};
use crate::support::demo::http::Answer;
use crate::support::wait::soon;

/// The targets of the app in the table that the proxy keeps.
fn targets(server: &Server) -> Vec<String> {
    let text = std::fs::read_to_string(server.stage.data_dir.join("routes.json")).unwrap();
    let table: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let targets = table["routes"][0]["targets"].as_array().unwrap().clone();
    let text = |target: &serde_json::Value| target.as_str().unwrap().to_owned();
    targets.iter().map(text).collect()
}

/// Writes deploy.toml with `more` at its end, tells the agent, and waits for an answer of `/` that
/// pleases.
async fn reloaded(server: &mut Server, before: &str, more: &str, pleases: fn(&Answer) -> bool) {
    std::fs::write(&server.stage.config, format!("{before}{more}")).unwrap();
    server.agent().reload();
    let pleased = soon(async || pleases(&server.get("/").await)).await;
    assert!(pleased, "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_targets_and_the_routes_follow_the_configuration_when_told() {
    let settings = SETTINGS.replace("[apps.hello.run]", "[apps.hello.run]\nreplicas = 2");
    let mut server = Server::with(&settings).await;
    server.go_live("v1").await;
    let two = targets(&server);
    assert!(two.len() == 2 && two[0] != two[1], "{two:?}");
    for _ in 0..4 {
        assert_eq!(server.version().await, "v1");
    }

    let metrics = server.ask(http::Request::get("/metrics"), "").await.text();
    let line = |name: &str, label: &str| {
        metrics
            .lines()
            .any(|line| line.starts_with(&format!("{name}{{app=\"hello\"")) && line.contains(label))
    };
    assert!(
        line("cutover_requests_total", "class=\"2xx\"} 4"),
        "{metrics}"
    );
    let took = "cutover_request_duration_seconds";
    assert!(
        line(&format!("{took}_bucket"), "le=\"+Inf\"} 4"),
        "{metrics}"
    );
    assert!(line(&format!("{took}_sum"), "} 0."), "{metrics}");

    let before = std::fs::read_to_string(&server.stage.config).unwrap();
    let page = server.stage.folder.join("closed.html");
    std::fs::write(&page, "<h1>Back at noon.</h1>").unwrap();
    let closed = "[apps.hello.proxy]\nmaintenance = { file = \"closed.html\" }\n";
    reloaded(&mut server, &before, closed, |answer| {
        answer.status == 503 && answer.text().contains("<h1>Back at noon.</h1>")
    })
    .await;
    // A mistake changes nothing, and is said.
    std::fs::write(&server.stage.config, format!("{before}[bananas]\n")).unwrap();
    server.agent().reload();
    let said = soon(async || server.log().contains("unknown key `bananas`")).await;
    assert!(said, "{}", server.log());
    assert_eq!(server.get("/").await.status, 503);
    reloaded(&mut server, &before, "", |answer| answer.status == 200).await;
    server.stop().await;
}
