//! What becomes of each ref that a push moved, whichever door it came through: a webhook, the
//! post-receive hook of a bare repository on this machine, or git over HTTP. A door parses the push and
//! authenticates its sender; here each ref is deployed, or recorded with the reason why not, and the
//! response names them all.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Agent, Result};
use crate::ids::{AppName, CommitId, DeploymentId, InvalidId};

mod again;
mod decide;
mod delivery;
pub mod image;
pub mod pending;
mod queue;
mod record;
mod repository;

pub(super) use again::again;
pub use again::restart;
pub use decide::refusal;
pub use delivery::{Answer, delivery};
pub use queue::{Queued, deployment, deployment_once, wished};
pub(super) use queue::{announce, before, queued_once};
pub use repository::{Push, pushed};

/// A ref that a push moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// `refs/…`
    pub git_ref: String,
    /// `None`: the ref is new, or the sender does not say.
    pub old: Option<CommitId>,
    /// `None`: the ref was deleted. An error is the reason why it cannot be deployed.
    pub new: std::result::Result<Option<CommitId>, String>,
    /// The commit that it points to now, if it is known: `new` may be the id of an annotated tag.
    pub points_to: Option<CommitId>,
    /// The head commit's message.
    pub message: Option<String>,
    pub author: Option<String>,
}

/// What became of a ref of a push, for one app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = PushResult)]
pub struct Outcome {
    #[serde(rename = "ref")]
    #[schema(example = "refs/heads/main")]
    pub git_ref: String,
    /// The app that deploys from this repository; null if there is none.
    #[schema(value_type = Option<String>, required, example = "hello")]
    pub app: Option<AppName>,
    /// The id of the deployment of the ref's commit, or of the one that was skipped; null if there is
    /// none.
    #[schema(value_type = Option<String>, required, example = "d01m5z8k2q4x7a")]
    pub deployment: Option<DeploymentId>,
    /// Why the ref is not deployed, or why the deployment is an earlier one.
    #[schema(required)]
    pub reason: Option<String>,
    /// Whether the commit or its pusher asked not to be deployed.
    #[serde(default)]
    pub skipped: bool,
}

impl Moved {
    /// From git's own notation: an id of zeros stands for no commit.
    pub fn read(git_ref: &str, old: &str, new: &str) -> Self {
        let commit = |id: &str| match id.bytes().all(|byte| byte == b'0') {
            true => Ok(None),
            false => id.parse().map(Some),
        };
        let error = |error: InvalidId| error.to_string();
        Self {
            git_ref: git_ref.to_owned(),
            old: commit(old).ok().flatten(),
            new: commit(new).map_err(error),
            points_to: None,
            message: None,
            author: None,
        }
    }

    fn commit(&self) -> Option<&CommitId> {
        self.new.as_ref().ok().and_then(Option::as_ref)
    }
}

impl Outcome {
    /// The deployments that a push led to, with their apps and without repetition: several refs may
    /// lead to one deployment. Without those that are skipped: there is nothing to follow.
    pub fn deployments(outcomes: &[Self]) -> Vec<(AppName, DeploymentId)> {
        let mut all: Vec<(AppName, DeploymentId)> = Vec::new();
        for outcome in outcomes.iter().filter(|it| !it.skipped) {
            if let (Some(app), Some(id)) = (&outcome.app, &outcome.deployment)
                && !all.iter().any(|(_, known)| known == id)
            {
                all.push((app.clone(), id.clone()));
            }
        }
        all
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (git_ref, why) = (&self.git_ref, self.reason.as_deref());
        if self.skipped {
            return write!(f, "{git_ref}: skipped: {}", why.unwrap_or("unknown"));
        }
        let Some(id) = &self.deployment else {
            return write!(f, "{git_ref}: not deployed: {}", why.unwrap_or("unknown"));
        };
        write!(f, "{git_ref}: deployment `{id}`")?;
        if let Some(app) = &self.app {
            write!(f, " of `{app}`")?;
        }
        match why {
            Some(why) => write!(f, ": {why}"),
            None => f.write_str(" is queued"),
        }
    }
}

#[cfg(test)]
mod tests;
