//! Gitea and Forgejo.

use serde_json::json;

use super::{Request, put};
use crate::report::{Address, Fact, Phase};

pub(super) fn headers(token: &str) -> Vec<(&'static str, String)> {
    vec![
        ("accept", "application/json".into()),
        ("authorization", format!("token {token}")),
    ]
}

pub(super) fn status(address: &Address, fact: &Fact) -> Request {
    let state = match fact.phase {
        Phase::Queued | Phase::Running => "pending",
        Phase::Live | Phase::Replaced | Phase::Unchanged => "success",
        Phase::Failed | Phase::RolledBack => "failure",
        Phase::Superseded | Phase::Cancelled => "warning",
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
