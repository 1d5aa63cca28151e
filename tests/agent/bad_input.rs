//! What a stranger, a broken forge or a mistake may send, and what it gets.

use std::time::Duration;

use crate::server::{APP, HOST, Server, files};
use crate::support::demo::{forge, http};
use crate::support::wait::soon;
use ::http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const OLD: &str = "1111111111111111111111111111111111111111";
const ZERO: &str = "0000000000000000000000000000000000000000";

fn hook(app: &str) -> ::http::request::Builder {
    Request::post(format!("/hooks/{app}"))
        .header("content-type", "application/json")
        .header("x-github-event", "push")
        .header("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_with_the_secret_gets_401_and_the_same_answer() {
    let mut server = Server::start().await;
    let body = forge::payload("refs/heads/main", OLD, OLD, "x").to_string();
    let good = forge::signature(&server.stage.secret, body.as_bytes());
    let other = forge::signature("another secret", body.as_bytes());
    let sha1 = format!("sha1={}", &good[7..47]);
    let mut answers = Vec::new();
    for request in [
        hook(APP),
        hook(APP).header("x-hub-signature-256", &other),
        hook(APP).header("x-hub-signature-256", &good[..40]),
        hook(APP).header("x-hub-signature-256", ""),
        hook(APP).header("x-hub-signature", sha1),
    ] {
        let answer = server.ask(request, body.as_str()).await;
        assert_eq!(answer.status, 401, "{}", answer.text());
        answers.push(answer.text());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:#?}");
    // The signature of another body.
    let request = hook(APP).header("x-hub-signature-256", &good);
    assert_eq!(server.ask(request, format!("{body} ")).await.status, 401);
    let request = hook(APP).header("x-hub-signature-256", &good);
    assert_eq!(server.ask(request, body).await.status, 202);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_secret_is_good_at_once_and_the_old_one_bad_soon() {
    let mut server = Server::start().await;
    let file = server.stage.folder.join("hello.secret");
    let ask = async |secret: &str| {
        let signature = forge::signature(secret, b"{}");
        let request = Request::post(format!("/hooks/{APP}")).header("x-github-event", "ping");
        let request = request.header("x-hub-signature-256", signature);
        let request = request.header("content-type", "application/json");
        server.ask(request, "{}").await.status
    };
    let old = server.stage.secret.clone();
    assert_eq!(ask(&old).await, 202);
    std::fs::write(&file, "a new one").unwrap();
    assert_eq!(ask("a new one").await, 202);
    assert!(
        soon(async || ask(&old).await == 401).await,
        "it is still good"
    );
    assert_eq!(ask("a new one").await, 202);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_app_is_404_and_broken_json_is_400() {
    let mut server = Server::start().await;
    let secret = server.stage.secret.clone();
    let signed = |app: &str, body: &[u8]| {
        hook(app).header("x-hub-signature-256", forge::signature(&secret, body))
    };
    let answer = server.ask(signed("nobody", b"{}"), *b"{}").await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert!(answer.json()["error"]["message"].is_string());

    let whole = forge::payload("refs/heads/main", OLD, OLD, "x").to_string();
    let truncated = whole.as_bytes()[..whole.len() / 2].to_vec();
    let not_text = b"{\"ref\": \"refs/heads/\xff\xfe\"}".to_vec();
    for body in [truncated, not_text, b"[]".to_vec(), Vec::new()] {
        let answer = server.ask(signed(APP, &body), body.clone()).await;
        assert_eq!(answer.status, 400, "{body:?}: {}", answer.text());
        assert!(answer.json()["error"]["code"].is_string());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_26_mib_is_413_before_it_is_read() {
    let mut server = Server::start().await;
    let address = server.agent().address;
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The headers and not one byte of the body: the answer cannot have waited for it.
    let head = format!(
        "POST /hooks/{APP} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         x-github-event: push\r\nx-hub-signature-256: sha256={}\r\ncontent-length: {}\r\n\r\n",
        "0".repeat(64),
        26 << 20
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let read = stream.read_exact(&mut answer);
    tokio::time::timeout(Duration::from_secs(5), read)
        .await
        .expect("it waits for the body")
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_that_are_not_for_the_branch_are_taken_with_the_reason() {
    let mut server = Server::start().await;
    for (event, payload) in [
        (
            "ping",
            serde_json::json!({ "zen": "Keep it logically awesome." }),
        ),
        ("push", forge::payload("refs/heads/other", OLD, OLD, "x")),
        ("push", forge::payload("refs/tags/v1", ZERO, OLD, "x")),
        ("push", forge::payload("refs/heads/main", OLD, ZERO, "x")),
        ("star", serde_json::json!({ "action": "created" })),
    ] {
        let address = server.agent().address;
        let answer = forge::deliver(address, APP, &server.stage.secret, event, &payload).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, 202, "{}", answer.text());
        let json = answer.json();
        assert!(json["delivery"].is_string(), "{event}: {json}");
        assert!(json["deployment"].is_null(), "{event}: {json}");
        assert!(json["reason"].is_string(), "{event}: {json}");
    }
    let path = format!("/api/v1/apps/{APP}/deployments");
    assert_eq!(server.api(&path).await["items"], serde_json::json!([]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_away_or_lacks_the_commit_fails_and_changes_nothing() {
    let mut server = Server::start().await;
    server.go_live("v1").await;

    // The branch is there, the pushed commit is not.
    let answer = server.cutover(&["deploy", APP, "--ref", OLD, "--follow"]);
    let (code, said) = run(answer).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&OLD[..7]), "{said}");
    assert_eq!(server.version().await, "v1");

    // What no repository can have is not even queued, where it would take a push's place.
    for name in ["../../etc", "HEAD~1", " ", "main:other"] {
        let (code, said) = run(server.cutover(&["deploy", APP, "--ref", name])).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("is not a valid name for a branch"), "{said}");
        assert!(said.contains("at least 7 digits of a commit"), "{said}");
    }
    let path = format!("/api/v1/apps/{APP}/deployments");
    let items = server.api(&path).await["items"].clone();
    assert_eq!(items.as_array().unwrap().len(), 2);

    let away = server.stage.folder.join("away.git");
    std::fs::rename(&server.stage.repo, &away).unwrap();
    let (code, said) = run(server.cutover(&["deploy", APP, "--follow"])).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("hello.git"), "{said}");
    assert_eq!(server.version().await, "v1");

    std::fs::rename(&away, &server.stage.repo).unwrap();
    let (code, said) = run(server.cutover(&["deploy", APP, "--follow"])).await;
    assert_eq!(code, Some(0), "{said}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_a_forced_push_took_away_gives_way_to_the_tip() {
    let mut server = Server::start().await;
    server.go_live("v1").await;
    let made = server.stage.commit("main", &files("v2", ""), "v2");
    let (old, tip) = made.unwrap();
    let payload = forge::payload("refs/heads/main", &old, OLD, "v2");
    let (address, secret) = (server.agent().address, server.stage.secret.clone());
    let answer = forge::deliver(address, APP, &secret, "push", &payload).await;
    let answer = answer.unwrap().json();
    let id = answer["deployment"].as_str().expect("it is deployed");
    let (deployment, log) = server.ended(id).await;
    assert_eq!(deployment.state, "live", "{log:#?}");
    assert_eq!(deployment.commit.as_deref(), Some(tip.as_str()));
    assert_eq!(server.version().await, "v2");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_of_long_ids_is_told_that_they_are_not_supported() {
    let mut server = Server::start().await;
    let long = "a".repeat(64);
    let payload = forge::payload("refs/heads/main", &"0".repeat(64), &long, "x");
    let (address, secret) = (server.agent().address, server.stage.secret.clone());
    let answer = forge::deliver(address, APP, &secret, "push", &payload).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("SHA-256"), "{}", answer.text());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_wants_its_token() {
    let mut server = Server::start().await;
    let path = format!("/api/v1/apps/{APP}/deployments");
    for token in ["", "Bearer ", "Bearer wrong", "Basic eDp5"] {
        let request = Request::post(&path).header("authorization", token);
        assert_eq!(server.ask(request, "{}").await.status, 401, "{token}");
    }
    let address = server.agent().address;
    let answer = http::get(address, HOST, "/api/v1/apps").await.unwrap();
    assert_eq!(answer.status, 401);
    server.stop().await;
}

async fn run(mut command: std::process::Command) -> (Option<i32>, String) {
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.code(), said)
}
