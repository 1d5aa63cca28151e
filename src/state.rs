//! The state machine of a deployment, as a pure table. Live runs and recovery after a crash go
//! through the same [`next`]; an event that it does not allow is an error and changes nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The state of a deployment. `queued` to `baking` are on the way; the others are rest states.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Queued,
    Fetching,
    Building,
    Testing,
    Releasing,
    Starting,
    Probing,
    /// A canary: a share of the traffic goes to the new release, the rest to the old one, which is
    /// still the live one.
    Shifting,
    /// Entered in the transaction that makes the new release the live one: from here on, the only
    /// way is forward.
    Switching,
    Draining,
    Baking,
    Live,
    Failed,
    Superseded,
    /// There was nothing to do.
    Skipped,
    Cancelled,
    RolledBack,
    /// An undo failed; an operator has to intervene.
    Stuck,
}

/// A step of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    Fetch,
    Build,
    Test,
    Release,
    Start,
    Probe,
    Canary,
    Switch,
    Drain,
    Bake,
    Retire,
}

/// What happens to a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The step begins.
    Begin(Step),
    /// The last step is done.
    Finish,
    /// A step failed and everything it and the ones before it did has been undone; or one after the switch
    /// did, and there is nothing to go back to.
    Fail,
    /// A newer deployment takes its place.
    Supersede,
    /// There is nothing to do.
    Skip,
    /// A person stopped it.
    Cancel,
    /// The agent or the engine became unavailable midway; everything is undone, and it waits to run
    /// again.
    Interrupt,
    /// It was live, and the release before it has been restored.
    RollBack,
    /// An undo failed.
    Stick,
}

/// An event that the state does not allow: a bug in the caller, reported and never applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a deployment that is {0} cannot take the event {1:?}")]
pub struct Illegal(pub State, pub Event);

/// The table.
pub fn next(state: State, event: Event) -> Result<State, Illegal> {
    use State::*;
    let before_switch = state < Switching;
    let after_switch = matches!(state, Switching | Draining | Baking);
    match (state, event) {
        (Queued, Event::Begin(Step::Fetch)) => Ok(Fetching),
        (Fetching, Event::Begin(Step::Build)) => Ok(Building),
        (Building, Event::Begin(Step::Test)) => Ok(Testing),
        (Building | Testing, Event::Begin(Step::Release)) => Ok(Releasing),
        // A rollback starts here: its image exists already.
        (Queued | Building | Testing | Releasing, Event::Begin(Step::Start)) => Ok(Starting),
        (Starting, Event::Begin(Step::Probe)) => Ok(Probing),
        (Probing, Event::Begin(Step::Canary)) => Ok(Shifting),
        (Probing | Shifting, Event::Begin(Step::Switch)) => Ok(Switching),
        (Switching, Event::Begin(Step::Drain)) => Ok(Draining),
        (Draining, Event::Begin(Step::Bake)) => Ok(Baking),
        (Draining | Baking, Event::Begin(Step::Retire)) => Ok(state),
        (Draining | Baking, Event::Finish) => Ok(Live),
        (_, Event::Fail) if before_switch || matches!(state, Draining | Baking) => Ok(Failed),
        (_, Event::Supersede) if before_switch => Ok(Superseded),
        (_, Event::Skip) if before_switch => Ok(Skipped),
        (_, Event::Cancel) if before_switch => Ok(Cancelled),
        (_, Event::Interrupt) if before_switch => Ok(Queued),
        (_, Event::RollBack) if after_switch => Ok(RolledBack),
        (_, Event::Stick) if before_switch || after_switch => Ok(Stuck),
        _ => Err(Illegal(state, event)),
    }
}

impl State {
    pub const ALL: [State; 18] = [
        State::Queued,
        State::Fetching,
        State::Building,
        State::Testing,
        State::Releasing,
        State::Starting,
        State::Probing,
        State::Shifting,
        State::Switching,
        State::Draining,
        State::Baking,
        State::Live,
        State::Failed,
        State::Superseded,
        State::Skipped,
        State::Cancelled,
        State::RolledBack,
        State::Stuck,
    ];

    /// Whether this is a rest state: nothing more will happen to it.
    pub fn is_rest(self) -> bool {
        self >= State::Live
    }

    /// Whether every request goes to its release, and it has not come to rest yet.
    pub fn is_serving(self) -> bool {
        matches!(self, State::Draining | State::Baking)
    }

    /// Whether the route points, or is about to point, to its release.
    pub fn is_switched(self) -> bool {
        matches!(self, State::Switching | State::Draining | State::Baking)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Fetching => "fetching",
            State::Building => "building",
            State::Testing => "testing",
            State::Releasing => "releasing",
            State::Starting => "starting",
            State::Probing => "probing",
            State::Shifting => "shifting",
            State::Switching => "switching",
            State::Draining => "draining",
            State::Baking => "baking",
            State::Live => "live",
            State::Failed => "failed",
            State::Superseded => "superseded",
            State::Skipped => "skipped",
            State::Cancelled => "cancelled",
            State::RolledBack => "rolled_back",
            State::Stuck => "stuck",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not the name of a state; only a damaged or foreign database contains one.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a state of a deployment")]
pub struct UnknownState(String);

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        let found = State::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| UnknownState(text.to_owned()))
    }
}

impl Step {
    pub const ALL: [Step; 11] = [
        Step::Fetch,
        Step::Build,
        Step::Test,
        Step::Release,
        Step::Start,
        Step::Probe,
        Step::Canary,
        Step::Switch,
        Step::Drain,
        Step::Bake,
        Step::Retire,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Step::Fetch => "fetch",
            Step::Build => "build",
            Step::Test => "test",
            Step::Release => "release",
            Step::Start => "start",
            Step::Probe => "probe",
            Step::Canary => "canary",
            Step::Switch => "switch",
            Step::Drain => "drain",
            Step::Bake => "bake",
            Step::Retire => "retire",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 8] = [
        Event::Finish,
        Event::Fail,
        Event::Supersede,
        Event::Skip,
        Event::Cancel,
        Event::Interrupt,
        Event::RollBack,
        Event::Stick,
    ];

    fn every_event() -> impl Iterator<Item = Event> {
        Step::ALL.into_iter().map(Event::Begin).chain(EVENTS)
    }

    #[test]
    fn the_whole_line_ends_live() {
        let mut state = State::Queued;
        for step in Step::ALL {
            state = next(state, Event::Begin(step)).unwrap();
        }
        assert_eq!(next(state, Event::Finish), Ok(State::Live));
    }

    #[test]
    fn a_rest_state_is_left_by_nothing() {
        for state in State::ALL.into_iter().filter(|s| s.is_rest()) {
            for event in every_event() {
                assert_eq!(next(state, event), Err(Illegal(state, event)));
            }
        }
    }

    #[test]
    fn nothing_but_the_switch_enters_switching_and_only_from_a_probed_candidate() {
        for state in State::ALL {
            for event in every_event() {
                if next(state, event) == Ok(State::Switching) {
                    assert_eq!(event, Event::Begin(Step::Switch));
                    assert!(matches!(state, State::Probing | State::Shifting), "{state}");
                }
            }
        }
    }

    #[test]
    fn a_canary_stands_between_probe_and_switch_and_can_be_undone_or_left_out() {
        let canary = Event::Begin(Step::Canary);
        for state in State::ALL {
            let entered = next(state, canary).is_ok();
            assert_eq!(entered, state == State::Probing, "{state}");
        }
        assert_eq!(next(State::Probing, canary), Ok(State::Shifting));
        assert!(!State::Shifting.is_switched() && !State::Shifting.is_rest());
        for (event, rest) in [
            (Event::Fail, State::Failed),
            (Event::Cancel, State::Cancelled),
            (Event::Supersede, State::Superseded),
            (Event::Interrupt, State::Queued),
            (Event::Stick, State::Stuck),
        ] {
            assert_eq!(next(State::Shifting, event), Ok(rest));
        }
        let switch = Event::Begin(Step::Switch);
        assert_eq!(next(State::Shifting, switch), Ok(State::Switching));
        assert_eq!(next(State::Probing, switch), Ok(State::Switching));
    }

    #[test]
    fn after_the_switch_it_cannot_be_cancelled_or_run_again_and_fails_in_its_drain_or_bake_alone() {
        for state in State::ALL.into_iter().filter(|s| s.is_switched()) {
            let fails = next(state, Event::Fail).is_ok();
            let late = matches!(state, State::Draining | State::Baking);
            assert_eq!(fails, late, "{state}");
            for event in [
                Event::Cancel,
                Event::Supersede,
                Event::Skip,
                Event::Interrupt,
            ] {
                assert!(next(state, event).is_err(), "{state} {event:?}");
            }
        }
    }

    #[test]
    fn every_state_on_the_way_can_reach_a_rest_state() {
        for state in State::ALL.into_iter().filter(|s| !s.is_rest()) {
            assert!(
                every_event().any(|e| next(state, e).is_ok_and(State::is_rest)),
                "{state}"
            );
        }
    }

    #[test]
    fn names_read_back() {
        for state in State::ALL {
            assert_eq!(state.as_str().parse::<State>().unwrap(), state);
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }
}
