//! GitLab.

use http::StatusCode;
use serde_json::json;

use super::{Request, put};
use crate::report::{Address, Fact, Phase};

pub(super) fn headers(token: &str) -> Vec<(&'static str, String)> {
    vec![("private-token", token.to_owned())]
}

pub(super) fn status(address: &Address, fact: &Fact) -> Request {
    let state = match fact.phase {
        Phase::Queued => "pending",
        Phase::Running => "running",
        Phase::Live | Phase::Replaced => "success",
        Phase::Failed | Phase::RolledBack => "failed",
        Phase::Superseded | Phase::Cancelled => "canceled",
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

/// GitLab's states are a machine that refuses to enter the state that it is in, and to go from
/// running back to pending: `Cannot transition status via :run from :running`.
pub(super) fn is_so_already(status: StatusCode, body: &[u8]) -> bool {
    let said = String::from_utf8_lossy(body).to_ascii_lowercase();
    status == StatusCode::BAD_REQUEST && said.contains("cannot transition")
}
