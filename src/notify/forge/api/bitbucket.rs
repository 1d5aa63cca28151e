//! Bitbucket Cloud.

use serde_json::json;
use sha2::{Digest, Sha256};

use super::Request;
use crate::config::ForgeAddress;
use crate::notify::forge::fact::Fact;
use crate::store::statuses::StatusPhase;

/// A key must be shorter than 40 characters.
const LONGEST_KEY: usize = 39;

pub(super) fn status(address: &ForgeAddress, fact: &Fact) -> Request {
    let state = match fact.phase {
        StatusPhase::Queued | StatusPhase::Running => "INPROGRESS",
        StatusPhase::Live | StatusPhase::Replaced | StatusPhase::Unchanged => "SUCCESSFUL",
        StatusPhase::Failed | StatusPhase::RolledBack | StatusPhase::Crashing => "FAILED",
        StatusPhase::Superseded | StatusPhase::Cancelled => "STOPPED",
    };
    let commit = format!(
        "{}/{}/commits/{}",
        address.web,
        address.repository(),
        fact.commit
    );
    let body = json!({
        "state": state,
        "key": key(&fact.context()),
        "name": fact.context(),
        "description": fact.description(),
        // Required; without a log URL, link to the commit's own page.
        "url": fact.log_url.as_ref().or(fact.environment_url.as_ref()).unwrap_or(&commit),
    });
    let path = format!(
        "/repositories/{}/commit/{}/statuses/build",
        address.repository(),
        fact.commit
    );
    Request::post(path, body)
}

/// The context, truncated and completed by a digest if it is too long.
fn key(context: &str) -> String {
    if context.len() <= LONGEST_KEY {
        return context.to_owned();
    }
    let digest = hex::encode(Sha256::digest(context.as_bytes()));
    let digest = &digest[..12];
    let mut cut = LONGEST_KEY - digest.len() - 1;
    while !context.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}-{digest}", &context[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_cut_and_stay_apart() {
        assert_eq!(key("cutover/hello"), "cutover/hello");
        let one = key(&format!("cutover/{}1", "é".repeat(40)));
        let two = key(&format!("cutover/{}2", "é".repeat(40)));
        assert!(one.len() <= LONGEST_KEY && two.len() <= LONGEST_KEY);
        assert_ne!(one, two);
    }
}
