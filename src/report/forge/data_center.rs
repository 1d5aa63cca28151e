//! Bitbucket Data Center, from 7.14.

use serde_json::json;

use super::Request;
use crate::report::{Address, Fact, Phase};

pub(super) fn status(address: &Address, fact: &Fact) -> Request {
    let state = match fact.phase {
        Phase::Queued | Phase::Running => "INPROGRESS",
        Phase::Live | Phase::Replaced | Phase::Unchanged => "SUCCESSFUL",
        Phase::Failed | Phase::RolledBack => "FAILED",
        Phase::Superseded | Phase::Cancelled => "CANCELLED",
    };
    let (project, repository) = address.owner_and_name();
    let path = format!(
        "/projects/{project}/repos/{repository}/commits/{}",
        fact.commit
    );
    let commit = format!("{}{path}", address.web);
    let folder = match fact.is_tag {
        true => "tags",
        false => "heads",
    };
    let body = json!({
        "state": state,
        "key": fact.context(),
        "name": fact.context(),
        "description": fact.description(),
        "ref": format!("refs/{folder}/{}", fact.git_ref),
        // It has to be there; the commit's own page leads nowhere else.
        "url": fact.log_url.as_ref().or(fact.environment_url.as_ref()).unwrap_or(&commit),
    });
    Request::post(format!("{path}/builds"), body)
}
