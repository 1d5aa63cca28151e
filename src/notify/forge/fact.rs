//! The state of a deployment, with everything that a forge may show about it.

use crate::ids::{AppName, CommitId, DeploymentId};
use crate::store::statuses::StatusPhase;

/// What to report. Nothing in it comes from a log or an error message: a status is as public as the
/// repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    pub app: AppName,
    pub deployment: DeploymentId,
    pub commit: CommitId,
    /// The branch or tag.
    pub git_ref: String,
    pub is_tag: bool,
    pub phase: StatusPhase,
    /// The step that failed.
    pub step: Option<String>,
    pub environment: String,
    /// Where the app is reached.
    pub environment_url: Option<String>,
    /// Where the deployment's log is.
    pub log_url: Option<String>,
}

impl Fact {
    /// The name that distinguishes this status from others of the same commit.
    pub fn context(&self) -> String {
        format!("cutover/{}", self.environment)
    }

    /// The phase in words: ASCII, and shorter than the 140 characters that GitHub accepts.
    pub fn description(&self) -> String {
        let said = match (self.phase, self.step.as_deref()) {
            (StatusPhase::Queued, _) => "Queued",
            (StatusPhase::Running, _) => "Deploying",
            (StatusPhase::Live, _) => "Live",
            (StatusPhase::Crashing, _) => "Exited after it went live",
            (StatusPhase::Replaced, _) => "Was live until a later deployment",
            (StatusPhase::Failed, Some(step)) => return format!("Failed at the step {step}"),
            (StatusPhase::Failed, None) => "Failed",
            (StatusPhase::RolledBack, _) => "Failed after going live, and was rolled back",
            (StatusPhase::Superseded, _) => "A newer push took its place",
            (StatusPhase::Unchanged, _) => "Skipped: there is nothing to deploy",
            (StatusPhase::Cancelled, _) => "Cancelled",
        };
        said.to_owned()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn fact(phase: StatusPhase) -> Fact {
        Fact {
            app: "hello".parse().unwrap(),
            deployment: "d0000000000001".parse().unwrap(),
            commit: "0123456789abcdef0123456789abcdef01234567".parse().unwrap(),
            git_ref: "main".into(),
            is_tag: false,
            phase,
            step: (phase == StatusPhase::Failed).then(|| "build".into()),
            environment: "hello".into(),
            environment_url: Some("https://hello.example.com".into()),
            log_url: None,
        }
    }

    #[test]
    fn a_failure_names_its_step_and_every_description_is_short() {
        assert_eq!(
            fact(StatusPhase::Failed).description(),
            "Failed at the step build"
        );
        for phase in StatusPhase::ALL {
            let said = fact(phase).description();
            assert!((1..=140).contains(&said.len()) && said.is_ascii(), "{said}");
        }
    }
}
