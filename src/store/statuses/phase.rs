//! A deployment's state as it is reported to a forge: there are fewer phases than states.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::state::State;

/// How far a deployment has got, as reported to a forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StatusPhase {
    Queued,
    Running,
    /// Live, and its bake is over.
    Live,
    /// It went live, and crashes now.
    Crashing,
    /// It was live until a later deployment took its place.
    Replaced,
    Failed,
    /// It was live, then the release before it was restored: a failure.
    RolledBack,
    Superseded,
    /// There was nothing to deploy: no path that the app depends on changed, or the commit says so.
    Unchanged,
    Cancelled,
}

impl StatusPhase {
    pub const ALL: [StatusPhase; 10] = [
        StatusPhase::Queued,
        StatusPhase::Running,
        StatusPhase::Live,
        StatusPhase::Crashing,
        StatusPhase::Replaced,
        StatusPhase::Failed,
        StatusPhase::RolledBack,
        StatusPhase::Superseded,
        StatusPhase::Unchanged,
        StatusPhase::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            StatusPhase::Queued => "queued",
            StatusPhase::Running => "running",
            StatusPhase::Live => "live",
            StatusPhase::Crashing => "crashing",
            StatusPhase::Replaced => "replaced",
            StatusPhase::Failed => "failed",
            StatusPhase::RolledBack => "rolled_back",
            StatusPhase::Superseded => "superseded",
            StatusPhase::Unchanged => "unchanged",
            StatusPhase::Cancelled => "cancelled",
        }
    }
}

impl From<State> for StatusPhase {
    fn from(state: State) -> Self {
        match state {
            State::Queued => StatusPhase::Queued,
            State::Live => StatusPhase::Live,
            // Somebody has to look into it, which is what a failure says.
            State::Failed | State::Stuck => StatusPhase::Failed,
            State::RolledBack => StatusPhase::RolledBack,
            State::Superseded => StatusPhase::Superseded,
            State::Skipped => StatusPhase::Unchanged,
            State::Cancelled => StatusPhase::Cancelled,
            // Until the bake is over it may still be rolled back.
            State::Fetching
            | State::Building
            | State::Testing
            | State::Releasing
            | State::Starting
            | State::Probing
            | State::Shifting
            | State::Switching
            | State::Draining
            | State::Baking => StatusPhase::Running,
        }
    }
}

impl fmt::Display for StatusPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that is not a phase: the database is damaged, or was not written by Cutover.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a phase of a deployment")]
pub struct UnknownStatusPhase(String);

impl FromStr for StatusPhase {
    type Err = UnknownStatusPhase;

    fn from_str(text: &str) -> Result<Self, UnknownStatusPhase> {
        let found = StatusPhase::ALL
            .into_iter()
            .find(|phase| phase.as_str() == text);
        found.ok_or_else(|| UnknownStatusPhase(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_live_is_a_success() {
        for state in State::ALL {
            assert_eq!(
                StatusPhase::from(state) == StatusPhase::Live,
                state == State::Live,
                "{state}"
            );
        }
    }

    #[test]
    fn what_is_at_rest_is_neither_queued_nor_running() {
        for state in State::ALL {
            let open = matches!(
                StatusPhase::from(state),
                StatusPhase::Queued | StatusPhase::Running
            );
            assert_eq!(open, !state.is_rest(), "{state}");
        }
    }

    #[test]
    fn names_read_back() {
        for phase in StatusPhase::ALL {
            assert_eq!(phase.as_str().parse::<StatusPhase>().unwrap(), phase);
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
        }
    }
}
