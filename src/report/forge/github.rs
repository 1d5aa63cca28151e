//! GitHub, and GitHub Enterprise Server.

use serde_json::{Value, json};

use super::{Request, put};
use crate::report::address::encoded;
use crate::report::{Address, Fact, Phase};

/// What sets our deployments apart from those of others.
const TASK: &str = "deploy:cutover";

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
    // GitHub has no word for what says nothing about the commit.
    status_with(address, fact, "error")
}

/// The status as Gitea takes it too; `nothing` is the state of what says nothing about the commit.
pub(super) fn status_with(address: &Address, fact: &Fact, nothing: &str) -> Request {
    let state = match fact.phase {
        Phase::Queued | Phase::Running => "pending",
        Phase::Live | Phase::Replaced | Phase::Unchanged => "success",
        Phase::Failed | Phase::RolledBack => "failure",
        Phase::Superseded | Phase::Cancelled => nothing,
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

pub(super) fn deployment(address: &Address, fact: &Fact) -> Option<Request> {
    // Of what never came to anything, or is over, there is nothing to show.
    if matches!(
        fact.phase,
        Phase::Superseded | Phase::Unchanged | Phase::Cancelled | Phase::Replaced
    ) {
        return None;
    }
    let body = json!({
        "ref": fact.commit,
        "task": TASK,
        // GitHub shall neither merge nor wait: what is deployed is decided already.
        "auto_merge": false,
        "required_contexts": [],
        "environment": fact.environment,
        "description": format!("Cutover deployment {}", fact.deployment),
        "payload": { "cutover": fact.deployment },
    });
    let path = format!("/repos/{}/deployments", address.repository());
    Some(Request::post(path, body))
}

pub(super) fn find(address: &Address, fact: &Fact) -> Request {
    Request::get(format!(
        "/repos/{}/deployments?sha={}&task={}&environment={}&per_page=100",
        address.repository(),
        fact.commit,
        encoded(TASK),
        encoded(&fact.environment)
    ))
}

pub(super) fn is_of(one: &Value, fact: &Fact) -> bool {
    // The payload comes back as the object that it was, or as its text.
    let text = one["payload"].as_str();
    let read = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let payload = read.as_ref().unwrap_or(&one["payload"]);
    payload["cutover"].as_str() == Some(fact.deployment.as_str())
        && one["sha"].as_str() == Some(fact.commit.as_str())
}

pub(super) fn progress(address: &Address, fact: &Fact, id: &str) -> Request {
    let state = match fact.phase {
        Phase::Queued => "queued",
        Phase::Running => "in_progress",
        Phase::Live => "success",
        Phase::Failed | Phase::RolledBack => "failure",
        Phase::Replaced | Phase::Superseded | Phase::Unchanged | Phase::Cancelled => "inactive",
    };
    let mut body = json!({ "state": state, "description": fact.description() });
    put(&mut body, "environment_url", fact.environment_url.as_ref());
    put(&mut body, "log_url", fact.log_url.as_ref());
    let path = format!("/repos/{}/deployments/{id}/statuses", address.repository());
    Request::post(path, body)
}
