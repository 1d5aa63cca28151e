//! What a forge is told of a deployment: fewer words than the states have.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::state::State;

/// How far a deployment is, as far as a forge cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Queued,
    Running,
    /// Live, and through its bake.
    Live,
    /// It was live until a later deployment took its place.
    Replaced,
    Failed,
    /// It was live and the release before it was put back: a failure.
    RolledBack,
    Superseded,
    /// There was nothing to deploy: nothing that the app is made of changed, or the commit says so.
    Unchanged,
    Cancelled,
}

impl Phase {
    pub const ALL: [Phase; 9] = [
        Phase::Queued,
        Phase::Running,
        Phase::Live,
        Phase::Replaced,
        Phase::Failed,
        Phase::RolledBack,
        Phase::Superseded,
        Phase::Unchanged,
        Phase::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Queued => "queued",
            Phase::Running => "running",
            Phase::Live => "live",
            Phase::Replaced => "replaced",
            Phase::Failed => "failed",
            Phase::RolledBack => "rolled_back",
            Phase::Superseded => "superseded",
            Phase::Unchanged => "unchanged",
            Phase::Cancelled => "cancelled",
        }
    }
}

impl From<State> for Phase {
    fn from(state: State) -> Self {
        match state {
            State::Queued => Phase::Queued,
            State::Live => Phase::Live,
            // Somebody has to look, which is what a failure says.
            State::Failed | State::Stuck => Phase::Failed,
            State::RolledBack => Phase::RolledBack,
            State::Superseded => Phase::Superseded,
            State::Cancelled => Phase::Cancelled,
            // Until the bake is over it may still be rolled back.
            State::Fetching
            | State::Building
            | State::Testing
            | State::Releasing
            | State::Starting
            | State::Probing
            | State::Switching
            | State::Draining
            | State::Baking => Phase::Running,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no phase; only a damaged or foreign database holds one.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a phase of a deployment")]
pub struct UnknownPhase(String);

impl FromStr for Phase {
    type Err = UnknownPhase;

    fn from_str(text: &str) -> Result<Self, UnknownPhase> {
        let found = Phase::ALL.into_iter().find(|phase| phase.as_str() == text);
        found.ok_or_else(|| UnknownPhase(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_live_is_a_success() {
        for state in State::ALL {
            assert_eq!(
                Phase::from(state) == Phase::Live,
                state == State::Live,
                "{state}"
            );
        }
    }

    #[test]
    fn what_is_at_rest_is_neither_queued_nor_running() {
        for state in State::ALL {
            let open = matches!(Phase::from(state), Phase::Queued | Phase::Running);
            assert_eq!(open, !state.is_rest(), "{state}");
        }
    }

    #[test]
    fn names_read_back() {
        for phase in Phase::ALL {
            assert_eq!(phase.as_str().parse::<Phase>().unwrap(), phase);
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
        }
    }
}
