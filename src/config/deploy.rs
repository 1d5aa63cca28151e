//! `[apps.NAME.deploy]` and `[apps.NAME.hooks]`.

use std::time::Duration;

use super::command::{Command, command};
use super::file::Section;
use super::values::duration;

#[derive(Debug, Clone)]
pub struct Deploy {
    pub strategy: Strategy,
    /// How long the old release may take to finish its requests.
    pub drain: Duration,
    /// How long errors can roll the new release back after the switch. Zero: no bake.
    pub bake: Duration,
    pub keep_releases: usize,
    /// Whether a newer push cancels a deployment that has not switched yet.
    pub supersede: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// The old release serves until the new one is healthy.
    BlueGreen,
    /// The old release stops before the new one starts; requests wait.
    Recreate,
}

/// Commands that run during a deployment; absent ones are skipped.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Run in the new image before it gets traffic, e.g. migrations. Absent: that of the Procfile.
    pub release: Option<Command>,
}

pub(super) fn deploy(mut section: Section<'_>) -> Deploy {
    let strategy = section.read("strategy", |node| {
        const EXPECTED: &str = "\"blue-green\" or \"recreate\"";
        match node.str(EXPECTED)? {
            "blue-green" => Some(Strategy::BlueGreen),
            "recreate" => Some(Strategy::Recreate),
            "canary" => {
                node.wrong("\"blue-green\" or \"recreate\"; this strategy is not supported yet")
            }
            _ => node.wrong(EXPECTED),
        }
    });
    let drain = section.read("drain", duration);
    let bake = section.read("bake", duration);
    let keep_releases = section.read("keep_releases", |node| node.integer(1, 1000));
    let supersede = section.read("supersede", |node| node.boolean());
    section.done();
    Deploy {
        strategy: strategy.unwrap_or(Strategy::BlueGreen),
        drain: drain.unwrap_or(Duration::from_secs(30)),
        bake: bake.unwrap_or(Duration::from_secs(60)),
        keep_releases: keep_releases.unwrap_or(5) as usize,
        supersede: supersede.unwrap_or(true),
    }
}

/// The test command too, which is short for `test.command`.
pub(super) fn hooks(mut section: Section<'_>) -> (Hooks, Option<Command>) {
    let test = section.read("test", command);
    let release = section.read("release", command);
    section.done();
    (Hooks { release }, test)
}
