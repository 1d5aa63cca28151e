//! `cutover token`: what it prints, and what is left of it.

use ::http::Request;
use serde_json::{Value, json};

use crate::server::{APP, Server};
use crate::support::wait::soon;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_printed_once_and_kept_nowhere() {
    let server = Server::start().await;
    let said = |arguments: &[&str]| {
        let output = server.cutover(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, token, stderr) = said(&[
        "token",
        "create",
        "ci",
        "--role",
        "deploy",
        "--app",
        APP,
        "--expires",
        "90d",
    ]);
    assert_eq!(code, Some(0), "{stderr}");
    let token = token.trim();
    assert!(
        token.starts_with("cutover_") && token.len() == 72,
        "{token}"
    );
    let status = async |request: ::http::request::Builder| {
        let request = request.header("authorization", format!("Bearer {token}"));
        server.ask(request, "").await.status.as_u16()
    };
    let deploy = || Request::post(format!("/api/v1/apps/{APP}/deployments"));
    assert_eq!(status(deploy()).await, 202);
    assert_eq!(status(Request::post("/api/v1/reload")).await, 403);
    let (_, list, _) = said(&["token", "list"]);
    for word in ["ci", "deploy", APP, "just now"] {
        assert!(list.contains(word), "{word}: {list}");
    }
    for (arguments, word) in [
        (&["token", "create", "ci", "--role", "read"][..], "already"),
        (
            &[
                "token",
                "create",
                "x",
                "--role",
                "read",
                "--expires",
                "soon",
            ],
            "expires",
        ),
        (
            &["token", "create", "x", "--role", "read", "--app", "helo"],
            "hello",
        ),
        (&["token", "revoke", "nobody"], "no token"),
        (&["token", "revoke", "admin"], "cannot be revoked"),
    ] {
        let (code, _, stderr) = said(arguments);
        assert!(
            code == Some(2) && stderr.contains(word),
            "{arguments:?}: {stderr}"
        );
    }
    for file in std::fs::read_dir(&server.stage.data_dir).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap_or_default();
        let found = bytes
            .windows(token.len())
            .any(|part| part == token.as_bytes());
        assert!(!found, "it is kept");
    }
    assert!(!server.log().contains(token), "it is logged");
    let (code, newer, _) = said(&["token", "rotate", "ci", "--keep", "1h"]);
    assert!(code == Some(0) && newer.trim() != token && newer.starts_with("cutover_"));
    assert_eq!(
        status(deploy()).await,
        202,
        "the old one is kept for an hour"
    );
    assert_eq!(said(&["token", "rotate", "ci"]).0, Some(0));
    assert_eq!(said(&["token", "rotate", "ci"]).0, Some(0));
    assert_eq!(status(deploy()).await, 401, "it is no longer kept");
    assert_eq!(said(&["token", "revoke", "ci"]).0, Some(0));
    assert_eq!(status(deploy()).await, 401);
    // Without a verb, as ever.
    assert_eq!(said(&["token"]).1.trim(), server.token());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_says_who_did_what_from_where() {
    let server = Server::start().await;
    let said = |arguments: &[&str]| {
        let output = server.cutover(arguments).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let entries = |more: &[&str]| -> Vec<Value> {
        let (code, lines) = said(&[&["audit", "--json"], more].concat());
        assert_eq!(code, Some(0), "{lines}");
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    };
    said(&["token", "create", "ci", "--role", "deploy"]);
    let deploy = |token: &str| {
        Request::post(format!("/api/v1/apps/{APP}/deployments"))
            .header("authorization", format!("Bearer {token}"))
    };
    let status = server.ask(deploy(&server.token()), "").await.status;
    assert_eq!(status.as_u16(), 202);
    let status = server.ask(deploy("nobody's"), "").await.status;
    assert_eq!(status.as_u16(), 401);
    said(&["scale", APP, "web=2"]);

    let of = |kind: &str| entries(&["--action", kind]).remove(0);
    let made = of("create-token");
    assert_eq!(made["requested_by"]["kind"], "local", "{made}");
    assert_eq!(made["detail"]["role"], "deploy", "{made}");
    let deployed = of("deploy");
    let by = &deployed["requested_by"];
    assert_eq!(
        (&by["token"], &by["from"]),
        (&json!("admin"), &json!("127.0.0.1"))
    );
    assert_eq!(deployed["app"], APP);
    assert!(deployed["detail"]["deployment"].is_string(), "{deployed}");
    let refused = of("refused");
    assert_eq!(refused["requested_by"]["kind"], "stranger", "{refused}");
    assert_eq!(refused["requested_by"]["from"], "127.0.0.1", "{refused}");
    let scaled = of("scale");
    assert_eq!(scaled["detail"]["replicas"], 2, "{scaled}");
    assert!(!format!("{:?}", entries(&[])).contains("nobody's"));

    assert!(entries(&["--app", "other"]).is_empty());
    assert_eq!(entries(&["--limit", "1"]).len(), 1);
    let all = entries(&["--since", "1h"]);
    let places: Vec<_> = all.iter().map(|it| it["seq"].as_i64().unwrap()).collect();
    let count = places.len() as i64;
    assert_eq!(places, (1..=count).rev().collect::<Vec<_>>());
    let (code, whole) = said(&["audit", "--verify"]);
    assert_eq!(code, Some(0));
    assert!(whole.contains(all[0]["hash"].as_str().unwrap()), "{whole}");
    let table = said(&["audit"]).1;
    assert!(table.contains("create-token") && table.contains("127.0.0.1"));

    // Who can write to the database cannot hide it.
    let database = server.stage.data_dir.join("cutover.db");
    let database = rusqlite::Connection::open(database).unwrap();
    let gone = database.execute("DELETE FROM actions WHERE seq = 2", []);
    assert_eq!(gone, Ok(1));
    assert_eq!(said(&["audit", "--verify"]).0, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_agent_logs_is_changed_for_a_while() {
    let mut server = Server::start().await;
    let level = async || server.api("/api/v1/log-level").await["level"].clone();
    assert_eq!(level().await, Value::Null);
    let asked = "answered a request";
    assert!(!server.log().contains(asked));
    let set = |arguments: &[&str]| {
        let arguments = [&["log-level"], arguments].concat();
        server.cutover(&arguments).output().unwrap().status.code()
    };
    assert_eq!(set(&["debug", "--for", "2s"]), Some(0));
    assert_eq!(level().await, "debug");
    let said = soon(async || server.log().contains(asked)).await;
    assert!(said, "{}", server.log());
    let back = soon(async || level().await.is_null()).await;
    assert!(back, "by itself");
    let count = server.log().matches(asked).count();
    level().await;
    assert_eq!(server.log().matches(asked).count(), count);
    for wrong in [
        &["loud"][..],
        &["debug", "--for", "2d"],
        &["debug", "--for", "x"],
    ] {
        assert_ne!(set(wrong), Some(0), "{wrong:?}");
    }
    assert_eq!(set(&["cutover::api=debug,hyper=warn"]), Some(0));
    assert_eq!(set(&["usual"]), Some(0));
    assert_eq!(level().await, Value::Null);
    let audit = server.api("/api/v1/actions?action=log-level").await;
    let audit = audit["items"].as_array().unwrap();
    assert_eq!(audit.len(), 3, "{audit:?}");
    assert_eq!(audit[0]["detail"]["of"], "agent");
    assert_eq!(audit[2]["detail"]["after"], "debug");

    // The proxy's own, and nobody else's.
    let of_proxy = async || {
        let shown = server.api("/api/v1/log-level?of=proxy").await;
        shown["level"].clone()
    };
    assert_eq!(of_proxy().await, Value::Null);
    assert_eq!(set(&["debug", "--proxy"]), Some(0));
    assert_eq!(
        (level().await, of_proxy().await),
        (Value::Null, "debug".into())
    );
    assert_eq!(set(&["usual", "--proxy"]), Some(0));
    assert_eq!(of_proxy().await, Value::Null);
    assert_eq!(set(&["debug", "--proxy", "--for", "1s"]), Some(0));
    let back = soon(async || of_proxy().await.is_null()).await;
    assert!(back, "by itself");
    server.stop().await;
}
