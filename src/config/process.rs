//! `[apps.NAME.processes.NAME]`: what runs beside the service that takes the requests.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Health;
use super::command::{Command, command};
use super::file::{Node, Section};
use super::health;
use super::values::{cpus, duration, memory};
use crate::ids::ServiceName;

/// A process type of an app, in the image of its release. It takes no requests.
#[derive(Debug, Clone)]
pub struct Process {
    pub command: Command,
    pub replicas: u32,
    /// In place of `run.memory`.
    pub memory: Option<u64>,
    /// In place of `run.cpus`.
    pub cpus: Option<f64>,
    /// In place of `run.stop_grace`.
    pub stop_grace: Option<Duration>,
    /// Whether new instances start while old ones still run.
    pub overlap: bool,
    pub health: Health,
}

impl Process {
    /// One of which only the command is known.
    pub fn of(command: Command) -> Self {
        Self {
            command,
            replicas: 1,
            memory: None,
            cpus: None,
            stop_grace: None,
            overlap: true,
            health: health::running(),
        }
    }
}

/// The process types of an app.
#[derive(Debug, Clone, Default)]
pub struct Processes {
    /// What `web` runs in place of the image's own command.
    pub web: Option<Command>,
    pub others: BTreeMap<ServiceName, Process>,
}

pub(super) fn processes(node: Node<'_>) -> Option<Processes> {
    let mut all = Processes::default();
    for (name, node) in node.entries("a section for each process, such as `processes.worker`")? {
        let parsed = match name.parse::<ServiceName>() {
            Ok(name) => Some(name),
            Err(error) => {
                node.file.report(node.start, error.to_string());
                None
            }
        };
        if name == "release" {
            let text = "`release` is no process: expected the command that runs before a release in \
                        `hooks.release`";
            node.file.report(node.start, text.to_owned());
        }
        match name {
            "web" => all.web = web(node.section()),
            // Read even if the name is invalid, so that mistakes inside are reported too.
            _ => {
                let read = process(node.section());
                all.others.extend(parsed.zip(read));
            }
        }
    }
    Some(all)
}

/// What other processes have of their own, and where `web` has it.
const OF_RUN: [(&str, &str); 5] = [
    ("replicas", "`run.replicas` of the app"),
    ("memory", "`run.memory` of the app"),
    ("cpus", "`run.cpus` of the app"),
    ("stop_grace", "`run.stop_grace` of the app"),
    ("health", "`health` of the app"),
];

/// Its other settings are those of `run` and `health`.
fn web(mut section: Section<'_>) -> Option<Command> {
    let command = section.required("command", "the command that `web` runs", command);
    for (key, belongs) in OF_RUN {
        if let Some(node) = section.node(key) {
            let at = &node.path;
            node.file.report(
                node.start,
                format!("`{at}` is not allowed here: `web` has only a command of its own; expected {belongs}"),
            );
        }
    }
    section.done();
    command
}

fn process(mut section: Section<'_>) -> Option<Process> {
    let command = section.required("command", "the command that the process runs", command);
    let replicas = section.read("replicas", |node| node.integer(0, 100));
    let limit = section.read("memory", memory);
    let cpus = section.read("cpus", cpus);
    let stop_grace = section.read("stop_grace", duration);
    let overlap = section.read("overlap", |node| node.boolean());
    let health = health::of_process(section.section("health"));
    section.done();
    Some(Process {
        command: command?,
        replicas: replicas.unwrap_or(1) as u32,
        memory: limit,
        cpus,
        stop_grace,
        overlap: overlap.unwrap_or(true),
        health,
    })
}
