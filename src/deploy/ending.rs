//! How a deployment ended, or that it serves while its bake goes on: the same words for everybody who
//! waits for it, whether on the command line or in a `git push` through either door.

use std::fmt;
use std::time::Duration;

use super::words::{seconds, took};
use crate::config::{App, Config};

/// What is known of a deployment once there is no more to wait for.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    pub id: String,
    pub app: String,
    /// A rest state, or a state after the switch; `queued` if it waits for the start of the app.
    pub state: String,
    /// The error's code; empty if there is no error.
    pub code: String,
    /// The error's message; empty if there is no error.
    pub why: String,
    /// The image's tag.
    pub image: Option<String>,
    /// The time from the request to the end of the switch.
    pub live_after: Option<Duration>,
    /// Whether errors of the new release still bring the old one back.
    pub watched: bool,
}

/// An ending in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The app has what was asked for.
    Good(String),
    /// It has not; and what to do about it.
    Bad { what: String, hint: String },
}

impl Ending {
    /// The last line of a followed log: `live`, `failed: …` or another rest state; `serving` at the
    /// switch.
    pub fn line(&self) -> String {
        match self.state.as_str() {
            "switching" | "draining" | "baking" => "serving".to_owned(),
            state if self.why.is_empty() => state.to_owned(),
            state => format!("{state}: {}", self.why.replace(['\n', '\r'], " ")),
        }
    }

    pub fn said(&self) -> Said {
        let Self {
            id,
            app,
            state,
            code,
            why,
            ..
        } = self;
        if matches!(state.as_str(), "live" | "switching" | "draining" | "baking") {
            return Said::Good(self.is_live());
        }
        // A push that was superseded is not a failure if the commit that it asked for is live.
        if state == "skipped" || code == "already_live" {
            return Said::Good(format!("`{app}` is unchanged: {why}"));
        }
        let (ended, hint) = match state.as_str() {
            // There may have been no release before this one.
            "failed" => (
                "failed",
                format!(
                    "the live release, if any, is unchanged; see the full log with `cutover logs {id}`"
                ),
            ),
            // The rollback is a separate deployment, which may not have switched yet.
            "rolled_back" => (
                "was rolled back",
                format!(
                    "the previous release comes back; `cutover status {app}` shows when it is live"
                ),
            ),
            "superseded" => (
                "was superseded",
                format!("`cutover status {app}` shows the newer one"),
            ),
            "cancelled" => (
                "was cancelled",
                format!("deploy again with `cutover deploy {app}`"),
            ),
            "queued" => (
                "waits: the app is stopped",
                format!("`cutover start {app}` starts it with this deployment"),
            ),
            "stuck" => (
                "is stuck",
                "the agent failed to undo it; run `cutover doctor` and read the agent's log".into(),
            ),
            other => (other, String::new()),
        };
        let colon = if why.is_empty() { "" } else { ": " };
        Said::Bad {
            what: format!("deployment `{id}` of `{app}` {ended}{colon}{why}"),
            hint,
        }
    }

    /// The same to somebody who pushed and waits no longer.
    pub fn said_to_pusher(&self) -> Said {
        match self.said() {
            Said::Good(text) if self.watched && self.line() == "serving" => Said::Good(format!(
                "{text}; `cutover logs {} --follow` shows how its watch ends",
                self.id
            )),
            said => said,
        }
    }

    fn is_live(&self) -> String {
        let Self { app, image, .. } = self;
        let image = image.as_deref().unwrap_or("its release");
        let took = self.live_after.map(took);
        let took = took.map_or(String::new(), |took| format!(" after {took}"));
        format!("`{app}` is live with `{image}`{took}")
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good(text) => f.write_str(text),
            Self::Bad { what, hint } if hint.is_empty() => write!(f, "Error: {what}"),
            Self::Bad { what, hint } => write!(f, "Error: {what}\nHint: {hint}"),
        }
    }
}

/// The line above the log of one of several deployments that a push has led to.
pub fn section(app: &str, deployment: &str) -> String {
    format!("--- {app}: deployment `{deployment}` ---")
}

/// The detail of a switch: where the new release serves and how long its bake is.
pub(super) fn serving(config: &Config, app: &App, bake: Option<Duration>) -> String {
    let url = config.app_url(app);
    match bake {
        Some(bake) => format!("serving at {url}; {WATCHED} for {}", seconds(bake)),
        None => format!("serving at {url}"),
    }
}

const WATCHED: &str = "watched";

/// Whether the detail of a switch says that a bake follows.
pub fn is_watched(switch: &str) -> bool {
    switch.contains(&format!("; {WATCHED} for "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;

    fn ended(state: State, code: &str) -> Ending {
        Ending {
            state: state.to_string(),
            code: code.to_owned(),
            why: if code.is_empty() { "" } else { "why" }.to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn only_what_left_the_app_without_what_was_asked_for_is_a_failure() {
        for state in State::ALL.into_iter().filter(|state| state.is_rest()) {
            let fine = matches!(ended(state, "").said(), Said::Good(_));
            assert_eq!(
                fine,
                matches!(state, State::Live | State::Skipped),
                "{state}"
            );
        }
        let already = ended(State::Superseded, "already_live").said();
        assert!(matches!(already, Said::Good(_)));
    }

    #[test]
    fn every_failure_has_a_hint_of_its_own() {
        let mut hints = Vec::new();
        for state in State::ALL.into_iter().filter(|state| state.is_rest()) {
            if let Said::Bad { what, hint } = ended(state, "code").said() {
                assert!(what.contains("why"), "{what}");
                hints.push(hint);
            }
        }
        hints.sort();
        hints.dedup();
        assert_eq!(hints.len(), 5, "{hints:#?}");
    }

    #[test]
    fn the_last_line_of_a_log_is_one_line() {
        let mut failed = ended(State::Failed, "code");
        failed.why = "two\nlines".into();
        assert_eq!(failed.line(), "failed: two lines");
        assert_eq!(ended(State::Live, "").line(), "live");
        assert_eq!(ended(State::Baking, "").line(), "serving");
    }
}
