//! Bitbucket Data Center, from 7.14.

use serde_json::json;

use super::Request;
use crate::config::ForgeAddress;
use crate::notify::forge::fact::Fact;
use crate::store::statuses::StatusPhase;

pub(super) fn status(address: &ForgeAddress, fact: &Fact) -> Request {
    let state = match fact.phase {
        StatusPhase::Queued | StatusPhase::Running => "INPROGRESS",
        StatusPhase::Live | StatusPhase::Replaced | StatusPhase::Unchanged => "SUCCESSFUL",
        StatusPhase::Failed | StatusPhase::RolledBack | StatusPhase::Crashing => "FAILED",
        StatusPhase::Superseded | StatusPhase::Cancelled => "CANCELLED",
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
        // Required; without a log URL, link to the commit's own page.
        "url": fact.log_url.as_ref().or(fact.environment_url.as_ref()).unwrap_or(&commit),
    });
    Request::post(format!("{path}/builds"), body)
}
