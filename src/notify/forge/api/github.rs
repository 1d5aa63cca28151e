//! GitHub, and GitHub Enterprise Server.

use serde_json::{Value, json};

use super::{Request, put};
use crate::config::ForgeAddress;
use crate::config::encoded;
use crate::notify::forge::fact::Fact;
use crate::store::statuses::StatusPhase;

/// The task that distinguishes our deployments from others.
const TASK: &str = "deploy:cutover";

pub(super) fn headers(token: &str) -> Vec<(&'static str, String)> {
    vec![
        ("accept", "application/vnd.github+json".into()),
        ("x-github-api-version", "2022-11-28".into()),
        ("authorization", format!("Bearer {token}")),
    ]
}

pub(super) fn status(address: &ForgeAddress, fact: &Fact) -> Request {
    // GitHub has no state for an outcome that says nothing about the commit.
    status_with(address, fact, "error")
}

/// The status, in the form that Gitea accepts too; `nothing` is the state for an outcome that says
/// nothing about the commit.
pub(super) fn status_with(address: &ForgeAddress, fact: &Fact, nothing: &str) -> Request {
    let state = match fact.phase {
        StatusPhase::Queued | StatusPhase::Running => "pending",
        StatusPhase::Live | StatusPhase::Replaced | StatusPhase::Unchanged => "success",
        StatusPhase::Failed | StatusPhase::RolledBack | StatusPhase::Crashing => "failure",
        StatusPhase::Superseded | StatusPhase::Cancelled => nothing,
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

pub(super) fn deployment(address: &ForgeAddress, fact: &Fact) -> Option<Request> {
    // A deployment that did not run, or has ended, is not shown.
    if matches!(
        fact.phase,
        StatusPhase::Superseded
            | StatusPhase::Unchanged
            | StatusPhase::Cancelled
            | StatusPhase::Replaced
    ) {
        return None;
    }
    let body = json!({
        "ref": fact.commit,
        "task": TASK,
        // GitHub must neither merge nor wait for checks: the commit is already decided.
        "auto_merge": false,
        "required_contexts": [],
        "environment": fact.environment,
        "description": format!("Cutover deployment {}", fact.deployment),
        "payload": { "cutover": fact.deployment },
    });
    let path = format!("/repos/{}/deployments", address.repository());
    Some(Request::post(path, body))
}

pub(super) fn find(address: &ForgeAddress, fact: &Fact) -> Request {
    Request::get(format!(
        "/repos/{}/deployments?sha={}&task={}&environment={}&per_page=100",
        address.repository(),
        fact.commit,
        encoded(TASK),
        encoded(&fact.environment)
    ))
}

pub(super) fn is_of(one: &Value, fact: &Fact) -> bool {
    // The payload is returned as the original object or as its text.
    let text = one["payload"].as_str();
    let read = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let payload = read.as_ref().unwrap_or(&one["payload"]);
    payload["cutover"].as_str() == Some(fact.deployment.as_str())
        && one["sha"].as_str() == Some(fact.commit.as_str())
}

pub(super) fn progress(address: &ForgeAddress, fact: &Fact, id: &str) -> Request {
    let state = match fact.phase {
        StatusPhase::Queued => "queued",
        StatusPhase::Running => "in_progress",
        StatusPhase::Live => "success",
        StatusPhase::Failed | StatusPhase::RolledBack | StatusPhase::Crashing => "failure",
        StatusPhase::Replaced
        | StatusPhase::Superseded
        | StatusPhase::Unchanged
        | StatusPhase::Cancelled => "inactive",
    };
    let mut body = json!({ "state": state, "description": fact.description() });
    put(&mut body, "environment_url", fact.environment_url.as_ref());
    put(&mut body, "log_url", fact.log_url.as_ref());
    let path = format!("/repos/{}/deployments/{id}/statuses", address.repository());
    Request::post(path, body)
}
