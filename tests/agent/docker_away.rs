//! Docker is not there: the agent starts, says so, takes deliveries, and goes on when it is back.

use std::os::unix::fs::symlink;

use crate::server::{SETTINGS, Server};
use crate::support::wait::soon;

const REAL: &str = "/var/run/docker.sock";

/// A server whose agent looks for Docker at a path that the test makes and takes away.
async fn server() -> Server {
    let server = Server::idle(SETTINGS).await;
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let ours = server.stage.folder.join("docker.sock");
    let text = text.replace(
        &format!("unix://{REAL}"),
        &format!("unix://{}", ours.display()),
    );
    assert!(text.contains(&ours.display().to_string()));
    std::fs::write(&server.stage.config, text).unwrap();
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_kept_and_deployed_when_docker_is_there() {
    let mut server = server().await;
    server.serve().await;
    let ready = server.ask(http::Request::get("/readyz"), "").await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.json()["docker"]
            .as_str()
            .unwrap()
            .contains("is not reachable"),
        "{}",
        ready.text()
    );

    let older = server.push("v0", "").await;
    let waits = "waiting for Docker, which has not answered since";
    server.until_log(&older, waits).await;
    let id = server.push("v1", "").await;
    server.until_log(&id, waits).await;
    symlink(REAL, server.stage.folder.join("docker.sock")).unwrap();
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "live", "{log:#?}\n{}", server.log());
    assert_eq!(server.version().await, "v1");

    // The last look may be a second old.
    let ready = async || server.ask(http::Request::get("/readyz"), "").await.status == 200;
    assert!(soon(ready).await, "{}", server.log());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_loses_docker_runs_again_when_it_is_back() {
    let mut server = server().await;
    let socket = server.stage.folder.join("docker.sock");
    symlink(REAL, &socket).unwrap();
    server.serve().await;
    server.go_live("v1").await;

    let load = server.load();
    let id = server.push("v2", "slow-start 5000").await;
    server.until_log(&id, "[probe] not healthy yet").await;
    std::fs::remove_file(&socket).unwrap();
    server.until_log(&id, "interrupted: ").await;
    server.until_log(&id, "waiting for Docker").await;
    assert_eq!(server.version().await, "v1");
    symlink(REAL, &socket).unwrap();

    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "live", "{log:#?}\n{}", server.log());
    assert_eq!(server.version().await, "v2");
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    server.stop().await;
}
