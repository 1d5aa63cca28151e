//! `[apps.NAME.test]`: what a new image has to pass before anything of it starts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Value;
use super::build::target;
use super::command::{Command, command};
use super::file::{Node, Section};
use super::need::{Need, needs};
use super::run::environment;
use super::values::{cpus, memory, positive};
use crate::ids::ServiceName;

/// At least one of `command` and `target` is there.
#[derive(Debug, Clone)]
pub struct Test {
    /// Absent: building `target` is the test.
    pub command: Option<Command>,
    /// The stage of the Dockerfile that is tested in place of the image itself.
    pub target: Option<String>,
    pub timeout: Duration,
    /// Besides those of `run.env`, which are in it too; the app's secrets are not.
    pub env: BTreeMap<String, Value>,
    /// In place of `run.memory`.
    pub memory: Option<u64>,
    /// In place of `run.cpus`.
    pub cpus: Option<f64>,
    /// What runs beside it, on a network of their own.
    pub needs: BTreeMap<ServiceName, Need>,
    /// Where the command leaves its results in the container: a file of JUnit's XML, or a folder of them.
    pub junit: Option<String>,
}

const TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// `hook`: what `hooks.test` names, which is the same in short.
pub(super) fn test(
    mut section: Section<'_>,
    is_there: bool,
    has_stages: bool,
    hook: Option<Command>,
) -> Option<Test> {
    let own = section.read("command", command);
    let target = section.read("target", target);
    if is_there && !section.is_misshapen() && !section.has("command") && !section.has("target") {
        section.report(format!(
            "`{}` is missing: expected the command that tests the image, or a `target` whose build does",
            section.key("command")
        ));
    }
    if target.is_some() && !has_stages {
        section.report(format!(
            "`{}` cannot be used without a Dockerfile: expected a `command` that tests the image",
            section.key("target")
        ));
    }
    if own.is_some() && hook.is_some() {
        section.report(format!(
            "`{}` and `hooks.test` are two commands for one thing: expected one of them",
            section.key("command")
        ));
    }
    let test = Test {
        command: own.or(hook),
        target,
        timeout: section
            .read("timeout", |node| positive(&node))
            .unwrap_or(TIMEOUT),
        env: section.read("env", environment).unwrap_or_default(),
        memory: section.read("memory", memory),
        cpus: section.read("cpus", cpus),
        needs: section.read("needs", needs).unwrap_or_default(),
        junit: section.read("junit", in_container),
    };
    for key in ["needs", "junit"] {
        if section.has(key) && test.command.is_none() && !section.has("command") {
            section.report(format!(
                "`{}` needs a `command`: expected the one that tests the image",
                section.key(key)
            ));
        }
    }
    section.done();
    (test.command.is_some() || test.target.is_some()).then_some(test)
}

fn in_container(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str =
        "the absolute path of a file or folder in the container, such as \"/app/junit.xml\"";
    let text = node.str(EXPECTED)?;
    let good = text.len() > 1 && text.starts_with('/') && !text.contains(char::is_control);
    good.then(|| text.to_owned())
        .or_else(|| node.wrong(EXPECTED))
}
