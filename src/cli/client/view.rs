//! The API's responses as the verbs read them. What an older or newer agent leaves out is empty.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::Error;
use crate::cli::words;
use crate::deploy::ending::{Ending, is_watched};
use crate::principal::Requester;
use crate::state::State;

/// `{"items": […], "next": …}`.
#[derive(Debug, Deserialize)]
pub struct List<T> {
    pub items: Vec<T>,
    #[serde(default)]
    pub next: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Deployment {
    pub id: String,
    pub app: String,
    pub trigger: String,
    #[serde(rename = "ref")]
    pub git_ref: Option<String>,
    pub commit: Option<String>,
    pub message: Option<String>,
    pub author: Option<String>,
    pub state: String,
    pub current: bool,
    pub release: Option<String>,
    pub image: Option<String>,
    pub image_gone: bool,
    pub provenance: Option<Provenance>,
    pub created_at: String,
    pub ended_at: Option<String>,
    pub steps: Vec<Step>,
    pub timings_ms: BTreeMap<String, f64>,
    pub tests: Option<Tests>,
    pub receipt: Option<Receipt>,
    pub error: Option<Failure>,
    /// Also `None` if it is of a kind that this version does not know.
    #[serde(deserialize_with = "known")]
    pub requested_by: Option<Requester>,
    #[serde(deserialize_with = "known")]
    pub cancelled_by: Option<Requester>,
    pub no_cache: bool,
    pub pull: bool,
    pub reports: Vec<Report>,
    pub volumes: Vec<Volume>,
}

/// What the image's test said of its single tests.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Tests {
    pub tests: u64,
    pub failed: u64,
    pub skipped: u64,
    pub failures: Vec<String>,
}

impl Deployment {
    /// Why it was skipped, if it was.
    pub fn skipped(&self) -> Option<&str> {
        let error = self.error.as_ref().filter(|_| self.state == "skipped");
        error.map(|error| error.message.as_str())
    }

    /// How it ended and why, in one line, if it did not go live.
    pub fn missed(&self) -> Option<String> {
        let ended = match self.state.as_str() {
            "skipped" => "was skipped",
            "failed" => "failed",
            "rolled_back" => "was rolled back",
            "stuck" => "is stuck",
            _ => return None,
        };
        let why = self.error.as_ref()?.message.lines().next()?;
        Some(format!("`{}` {ended}: {why}", self.id))
    }

    /// The time from the request to the end of the switch; `None` if it did not get that far.
    pub fn live_after(&self) -> Option<Duration> {
        let switch = self.steps.iter().find(|step| step.name == "switch")?;
        words::between(&self.created_at, switch.ended_at.as_deref()?)
    }

    /// Whether every request goes to its release, while it has not come to rest yet.
    pub fn is_serving(&self) -> bool {
        self.state.parse().is_ok_and(State::is_serving)
    }

    /// How it ended, or that it serves.
    pub fn ending(&self) -> Ending {
        let error = self.error.clone().unwrap_or_default();
        let switch = self.steps.iter().find(|step| step.name == "switch");
        let switch = switch.and_then(|step| step.detail.as_deref());
        Ending {
            id: self.id.clone(),
            app: self.app.clone(),
            state: self.state.clone(),
            code: error.code,
            why: error.message,
            image: self.image.clone(),
            live_after: self.live_after(),
            watched: switch.is_some_and(is_watched),
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Step {
    pub name: String,
    pub state: String,
    pub started_at: Option<String>,
    pub ended_at: Option<String>,
    pub detail: Option<String>,
}

/// A volume that is kept although its container is gone.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Volume {
    pub name: String,
    pub path: String,
}

/// What the forge is told about a deployment.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Report {
    pub kind: String,
    pub phase: String,
    pub state: String,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Receipt {
    pub requests: u64,
    pub failed: u64,
    pub retried: u64,
    /// An agent of an earlier version does not tell.
    #[serde(default)]
    pub rescued: u64,
    pub drained: u64,
    pub websockets_closed: u64,
    pub drain_ms: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Failure {
    pub code: String,
    pub message: String,
    pub step: Option<String>,
    pub log_tail: Vec<String>,
}

/// What an image was built from.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Provenance {
    pub built_by: String,
    pub source: String,
    pub dockerfile: Option<String>,
    pub dockerfile_id: Option<String>,
    pub command: Option<String>,
    pub target: Option<String>,
    pub bases: Vec<Base>,
    pub attestation: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Base {
    pub name: String,
    pub digest: Option<String>,
    pub image_id: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Release {
    pub id: String,
    pub deployment: String,
    pub commit: String,
    pub message: String,
    pub author: String,
    pub image: String,
    pub current: bool,
    pub created_at: String,
    pub live_at: Option<String>,
    /// Whether its image is still kept, so that a rollback can go back to it.
    pub kept: bool,
    /// Whether it failed in its bake.
    pub failed_bake: bool,
    /// Whether somebody removed its image.
    pub gone: bool,
    /// The settings in which it differs from the one before, if that is of the same image.
    pub changed: Option<Vec<String>>,
}

impl Release {
    /// Its id, commit, subject and age.
    pub fn described(&self) -> String {
        let since = self.live_at.as_deref().unwrap_or(&self.created_at);
        let commit = words::short(&self.commit);
        words::described(&self.id, commit, &self.message, &words::ago(since))
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct App {
    pub name: String,
    /// Whether the app is in deploy.toml; an older agent does not say.
    pub configured: Option<bool>,
    pub repo: String,
    pub branch: String,
    pub domains: Vec<String>,
    /// The release that serves now.
    pub release: Option<Release>,
    /// The newest deployment.
    pub deployment: Option<Deployment>,
    /// The one that is under way.
    pub running: Option<Deployment>,
    /// `docker`, if that keeps the one under way from going on.
    pub waiting_for: Option<String>,
    pub instances: Option<Instances>,
    pub stopped: Option<Stopped>,
    pub pinned: Option<Held>,
    pub maintenance: Option<Held>,
    pub removing: bool,
    /// What does not run as it should.
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Stopped {
    pub at: String,
    pub by: String,
}

/// What a person has put on an app.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Held {
    pub at: String,
    pub by: String,
    pub text: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Instances {
    pub wanted: u32,
    pub serving: u32,
    /// `web` first.
    pub processes: Vec<Process>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Process {
    pub name: String,
    pub wanted: u32,
    pub serving: u32,
    /// What deploy.toml says, if a person has scaled it.
    pub configured: Option<u32>,
}

/// `{"error": …}`.
#[derive(Debug, Default, Deserialize)]
pub struct Refusal {
    pub error: Refused,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Refused {
    pub code: String,
    pub message: String,
    pub hint: Option<String>,
}

/// Parses a response as the expected type.
pub fn read<T: serde::de::DeserializeOwned>(answer: &Value) -> Result<T, Error> {
    T::deserialize(answer).map_err(|error| {
        Error::failed("unexpected answer from the agent")
            .because(&error)
            .hint("check that both are of the same version: `cutover --version`")
    })
}

fn known<'de, D: serde::Deserializer<'de>>(json: D) -> Result<Option<Requester>, D::Error> {
    let value = Value::deserialize(json)?;
    Ok(serde_json::from_value(value).ok())
}

/// Encodes an argument of the command line as one segment of a path.
pub fn segment(word: &str) -> String {
    percent_encoding::utf8_percent_encode(word, percent_encoding::NON_ALPHANUMERIC)
        .to_string()
        .replace("%2D", "-")
}
