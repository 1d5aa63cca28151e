//! Plays GitHub as far as an agent sees it: sends a signed push delivery.

use std::net::SocketAddr;

use hmac::{Hmac, KeyInit, Mac};
use http::Request;
use serde_json::{Value, json};
use sha2::Sha256;

use super::http::{Answer, send};
use crate::cli::Error;

/// The payload of a push that moves `git_ref` from `old` to `new`.
pub fn payload(git_ref: &str, old: &str, new: &str, message: &str) -> Value {
    let author = json!({ "name": "Ada Lovelace", "email": "ada@example.com" });
    let commit = json!({
        "id": new,
        "message": message,
        "author": author,
        "committer": author,
        "timestamp": "2026-01-01T00:00:00Z",
        "url": format!("https://github.example.com/ada/hello/commit/{new}"),
    });
    let zero = |id: &str| id.bytes().all(|byte| byte == b'0');
    json!({
        "ref": git_ref,
        "before": old,
        "after": new,
        "created": zero(old),
        "deleted": zero(new),
        "forced": false,
        "head_commit": if zero(new) { Value::Null } else { commit.clone() },
        "commits": if zero(new) { json!([]) } else { json!([commit]) },
        "repository": {
            "full_name": "ada/hello",
            "default_branch": "main",
            "clone_url": "https://github.example.com/ada/hello.git",
        },
        "pusher": author,
        "sender": { "login": "ada" },
    })
}

/// The value of `X-Hub-Signature-256` for `body`.
pub fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// Sends a signed delivery to the agent at `address`.
pub async fn deliver(
    address: SocketAddr,
    app: &str,
    secret: &str,
    event: &str,
    payload: &Value,
) -> Result<Answer, Error> {
    let body = payload.to_string();
    let mut id = [0u8; 16];
    let _ = getrandom::fill(&mut id);
    let request = Request::post(format!("/hooks/{app}"))
        .header("host", address.to_string())
        .header("user-agent", "GitHub-Hookshot/cutover")
        .header("content-type", "application/json")
        .header("x-github-event", event)
        .header("x-github-delivery", hex::encode(id))
        .header("x-hub-signature-256", signature(secret, body.as_bytes()));
    send(address, request, body).await
}
