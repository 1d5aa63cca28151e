//! `[apps.NAME.run]`: how an app's containers run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::capabilities::capabilities;
use super::container::{Container, container};
use super::file::{Node, Section};
use super::values::{duration, path, secret, variable_name};
use super::volumes::{Volume, volumes};
use super::{Secret, units};

/// The settings that a release runs with.
#[derive(Debug, Clone)]
pub struct Run {
    pub env: BTreeMap<String, Value>,
    /// A file of `NAME=VALUE` lines. Names in `env` take precedence over those in it.
    pub env_file: Option<PathBuf>,
    pub replicas: u32,
    /// The limit in bytes. Absent: no limit.
    pub memory: Option<u64>,
    /// The limit in processors, possibly a fraction. Absent: no limit.
    pub cpus: Option<f64>,
    /// The time between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
    /// What the containers may do besides what every container may; names without `CAP_`.
    pub capabilities: Vec<String>,
    pub volumes: Vec<Volume>,
    pub container: Container,
}

/// The value of an environment variable, or where it is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    From(Secret),
}

pub(super) fn run(mut section: Section<'_>, binds: &[PathBuf]) -> Run {
    let env = section.read("env", environment);
    let env_file = section.read("env_file", path);
    let replicas = section.read("replicas", |node| node.integer(1, 100));
    let memory = section.read("memory", |node| {
        let text = node.str(units::MEMORY)?;
        units::memory(text).or_else(|| node.wrong(units::MEMORY))
    });
    let cpus = section.read("cpus", |node| {
        let number = node.float().filter(|n| (0.01..=1024.0).contains(n));
        number.or_else(|| node.wrong("a number of processors such as 0.5 or 2.0"))
    });
    let stop_grace = section.read("stop_grace", duration);
    let capabilities = section.read("capabilities", capabilities);
    let mut targets = BTreeSet::new();
    let volumes = section.read("volumes", |node| volumes(node, binds, &mut targets));
    let container = container(&mut section, &mut targets);
    section.done();
    Run {
        env: env.unwrap_or_default(),
        env_file,
        replicas: replicas.unwrap_or(1) as u32,
        memory,
        cpus,
        stop_grace: stop_grace.unwrap_or(Duration::from_secs(10)),
        capabilities: capabilities.unwrap_or_default(),
        volumes: volumes.unwrap_or_default(),
        container,
    }
}

/// Messages do not show the values.
fn environment(node: Node<'_>) -> Option<BTreeMap<String, Value>> {
    let mut all = BTreeMap::new();
    let expected = "a table of names and values such as { RUST_LOG = \"info\" }";
    for (name, node) in node.entries(expected)? {
        if !variable_name(name, &node) {
            continue;
        }
        let value = match node.value.get_ref() {
            DeValue::String(text) if !text.contains('\0') => Some(Value::Text(text.to_string())),
            DeValue::String(_) => node.wrong_unshown("a string without NUL characters"),
            DeValue::Table(_) => secret(node).map(Value::From),
            _ => node.wrong_unshown(format!("a string: {name} = \"…\", with quotes")),
        };
        all.extend(value.map(|value| (name.to_owned(), value)));
    }
    Some(all)
}
