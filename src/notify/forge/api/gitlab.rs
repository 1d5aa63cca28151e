//! GitLab.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Request, put};
use crate::config::ForgeAddress;
use crate::config::encoded;
use crate::notify::forge::fact::Fact;
use crate::store::statuses::StatusPhase;

pub(super) fn headers(token: &str) -> Vec<(&'static str, String)> {
    vec![("private-token", token.to_owned())]
}

pub(super) fn status(address: &ForgeAddress, fact: &Fact) -> Request {
    let state = match fact.phase {
        StatusPhase::Queued => "pending",
        StatusPhase::Running => "running",
        StatusPhase::Live | StatusPhase::Replaced | StatusPhase::Unchanged => "success",
        StatusPhase::Failed | StatusPhase::RolledBack | StatusPhase::Crashing => "failed",
        StatusPhase::Superseded | StatusPhase::Cancelled => "canceled",
    };
    let mut body = json!({
        "state": state,
        "name": fact.context(),
        "description": fact.description(),
        "ref": fact.git_ref,
    });
    put(&mut body, "target_url", fact.log_url.as_ref());
    let path = format!(
        "/projects/{}/statuses/{}",
        address.repository_id(),
        fact.commit
    );
    Request::post(path, body)
}

/// GitLab's state machine refuses to enter the current state again, and to go from running back to
/// pending: `Cannot transition status via :run from :running`.
pub(super) fn is_so_already(status: StatusCode, body: &[u8]) -> bool {
    let said = String::from_utf8_lossy(body).to_ascii_lowercase();
    status == StatusCode::BAD_REQUEST && said.contains("cannot transition")
}

fn deployment_state(phase: StatusPhase) -> Option<&'static str> {
    match phase {
        StatusPhase::Queued => None,
        StatusPhase::Running => Some("running"),
        StatusPhase::Live => Some("success"),
        StatusPhase::Failed | StatusPhase::RolledBack | StatusPhase::Crashing => Some("failed"),
        StatusPhase::Superseded | StatusPhase::Unchanged | StatusPhase::Cancelled => {
            Some("canceled")
        }
        // The newest success is the one that GitLab shows as current.
        StatusPhase::Replaced => None,
    }
}

pub(super) fn deployment(address: &ForgeAddress, fact: &Fact) -> Option<Request> {
    // A deployment that did not run is not shown.
    if matches!(
        fact.phase,
        StatusPhase::Superseded | StatusPhase::Unchanged | StatusPhase::Cancelled
    ) {
        return None;
    }
    deployment_state(fact.phase)?;
    let body = json!({
        "environment": fact.environment,
        "sha": fact.commit,
        "ref": fact.git_ref,
        "tag": fact.is_tag,
        // Even one that has ended is created as running: only running ones are found again.
        "status": "running",
    });
    let path = format!("/projects/{}/deployments", address.repository_id());
    Some(Request::post(path, body))
}

pub(super) fn find(address: &ForgeAddress, fact: &Fact) -> Request {
    Request::get(format!(
        "/projects/{}/deployments?environment={}&status=running&order_by=id&sort=desc",
        address.repository_id(),
        encoded(&fact.environment)
    ))
}

/// GitLab stores no data of ours with a deployment. An app runs one deployment at a time, so a running
/// one of this commit must be it.
pub(super) fn is_of(one: &Value, fact: &Fact) -> bool {
    one["sha"].as_str() == Some(fact.commit.as_str())
}

pub(super) fn progress(address: &ForgeAddress, fact: &Fact, id: &str) -> Option<Request> {
    let state = match fact.phase {
        // It has been running since its creation.
        StatusPhase::Running => None,
        // It was live, and GitLab may not know. If it does, it answers that the state is current
        // already.
        StatusPhase::Replaced => Some("success"),
        phase => deployment_state(phase),
    }?;
    let path = format!("/projects/{}/deployments/{id}", address.repository_id());
    Some(Request::put(path, json!({ "status": state })))
}

pub(super) fn environment(address: &ForgeAddress, fact: &Fact) -> Option<Request> {
    fact.environment_url.as_ref()?;
    Some(Request::get(format!(
        "/projects/{}/environments?name={}",
        address.repository_id(),
        encoded(&fact.environment)
    )))
}

pub(super) fn correction(address: &ForgeAddress, fact: &Fact, answer: &Value) -> Option<Request> {
    let url = fact.environment_url.as_ref()?;
    let path = format!("/projects/{}/environments", address.repository_id());
    match answer.get(0) {
        None => {
            let body = json!({ "name": fact.environment, "external_url": url });
            Some(Request::post(path, body))
        }
        Some(found) if found["external_url"].as_str() == Some(url) => None,
        Some(found) => {
            let body = json!({ "external_url": url });
            let id = found["id"].as_u64()?;
            Some(Request::put(format!("{path}/{id}"), body))
        }
    }
}
