//! How a new release is judged before it gets traffic.

use std::time::{Duration, Instant};

use cutover::cli::client::view::Deployment;

use crate::server::{File, Server, files};

const SETTINGS: &str = r#"
domains = ["*.hello.test"]
[apps.hello.health]
path = "/health"
interval = "50ms"
deadline = "3s"
[apps.hello.deploy]
bake = "0s"
[apps.hello.run]
stop_grace = "1s"
"#;

async fn ended(server: &Server, behaviour: &str) -> Deployment {
    ended_with(server, &files("v1", behaviour)).await
}

async fn ended_with(server: &Server, files: &[File]) -> Deployment {
    let id = server.push_files(files, "v1").await;
    server.ended(&id).await.0
}

/// The code and the message of what failed.
fn failure(deployment: Deployment) -> (String, String) {
    assert_eq!(deployment.state, "failed");
    let error = deployment.error.expect("a failed deployment has an error");
    assert_eq!(error.step.as_deref(), Some("probe"), "{error:?}");
    (error.code, error.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_ask_for_a_name_that_visitors_use() {
    let mut server = Server::with(SETTINGS).await;
    let below = ended(&server, "host www.hello.test").await;
    assert_eq!(below.state, "live", "{:?}", below.error);
    let (code, said) = failure(ended(&server, "host other.test").await);
    assert_eq!(code, "unhealthy");
    assert!(
        said.contains("400") && said.contains("health.host"),
        "{said}"
    );
    server.stop().await;

    let settings = SETTINGS.replace("path =", "host = \"other.test\"\npath =");
    let mut server = Server::with(&settings).await;
    let named = ended(&server, "host other.test").await;
    assert_eq!(named.state, "live", "{:?}", named.error);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_only_redirects_to_https_and_fails_there_is_not_healthy() {
    let mut server = Server::with(SETTINGS).await;
    let good = ended(&server, "to-https").await;
    assert_eq!(good.state, "live", "{:?}", good.error);
    let (code, said) = failure(ended(&server, "to-https\nfails-by-https").await);
    assert_eq!(code, "unhealthy");
    assert!(said.contains("500"), "{said}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_visitors_come_by_https_probes_do_too() {
    let mut server = Server::idle(SETTINGS).await;
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let text = text.replace("[proxy]\n", "[proxy]\nhttps = \"127.0.0.1:0\"\n");
    std::fs::write(&server.stage.config, text).unwrap();
    server.serve().await;
    let (_, said) = failure(ended(&server, "fails-by-https").await);
    assert!(said.contains("500"), "{said}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_path_or_port_is_answered_with_what_to_set() {
    let settings = SETTINGS.replace("path = \"/health\"\n", "");
    let mut server = Server::with(&settings).await;
    let (code, said) = failure(ended(&server, "no-root").await);
    assert_eq!(code, "unhealthy");
    for word in ["404", "`health.path`", "`port` is 8080", "listens on 8080"] {
        assert!(said.contains(word), "no {word}: {said}");
    }
    let (code, said) = failure(ended(&server, "listen 9000").await);
    assert_eq!(code, "unhealthy");
    for word in ["refused", "listens on 9000", "`port = 9000`"] {
        assert!(said.contains(word), "no {word}: {said}");
    }
    // It does not listen yet: what its image declares is the best guess.
    let mut exposing = files("v1", "slow-start 60000");
    let dockerfile = exposing
        .iter_mut()
        .find(|it| it.path == "Dockerfile")
        .unwrap();
    let text = String::from_utf8_lossy(&dockerfile.bytes).replace("EXPOSE 8080", "EXPOSE 80");
    dockerfile.bytes = text.into_bytes();
    let (_, said) = failure(ended_with(&server, &exposing).await);
    for word in ["`EXPOSE 80`", "`port = 80`"] {
        assert!(said.contains(word), "no {word}: {said}");
    }
    server.stop().await;
}

/// It answers at first, so that two probes in a row would let it through.
#[tokio::test(flavor = "multi_thread")]
async fn what_exits_soon_after_its_start_does_not_go_live_and_is_noticed_at_once() {
    let settings = SETTINGS
        .replace("\"50ms\"", "\"5s\"")
        .replace("\"3s\"", "\"60s\"");
    let mut server = Server::with(&settings).await;
    for wait in [50, 300] {
        let began = Instant::now();
        let (code, said) = failure(ended(&server, &format!("crash-after {wait}")).await);
        assert_eq!(code, "exited");
        assert!(said.contains("exited with code 3"), "{said}");
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(40),
            "it waited for a probe: {took:?}"
        );
    }
    server.stop().await;
}
