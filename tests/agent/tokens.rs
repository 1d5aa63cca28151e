//! `cutover token`: what it prints, and what is left of it.

use ::http::Request;

use crate::server::{APP, Server};

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
