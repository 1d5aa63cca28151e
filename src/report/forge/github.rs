//! GitHub, and GitHub Enterprise Server.

use serde_json::json;

use super::{Request, put};
use crate::report::{Address, Fact, Phase};

pub(super) fn api(web: &str) -> String {
    match web.strip_prefix("https://") {
        Some(host @ "github.com") => format!("https://api.{host}"),
        Some(host) if host.ends_with(".ghe.com") => format!("https://api.{host}"),
        _ => format!("{web}/api/v3"),
    }
}

pub(super) fn headers(token: &str) -> Vec<(&'static str, String)> {
    vec![
        ("accept", "application/vnd.github+json".into()),
        ("x-github-api-version", "2022-11-28".into()),
        ("authorization", format!("Bearer {token}")),
    ]
}

pub(super) fn status(address: &Address, fact: &Fact) -> Request {
    let state = match fact.phase {
        Phase::Queued | Phase::Running => "pending",
        Phase::Live | Phase::Replaced => "success",
        Phase::Failed | Phase::RolledBack => "failure",
        // GitHub has no word for what says nothing about the commit.
        Phase::Superseded | Phase::Cancelled => "error",
    };
    let mut body = json!({
        "state": state,
        "context": fact.context(),
        "description": fact.description(),
    });
    put(&mut body, "target_url", fact.log_url.as_ref());
    let path = format!("/repos/{}/statuses/{}", address.repository(), fact.commit);
    Request::post(path, body)
}
