//! `[apps.NAME.run]`: how an app's containers run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::capabilities::capabilities;
use super::container::{Container, container};
use super::file::{Node, Section};
use super::grants::Grants;
use super::values::{cpus, duration, memory, path, secret, secret_in, variable_name};
use super::volumes::{Volume, volumes};
use super::{Secret, env_file};
use crate::ids::AppName;

/// The settings that a release runs with.
#[derive(Debug, Clone)]
pub struct Run {
    pub env: BTreeMap<String, Value>,
    /// A file of `NAME=VALUE` lines. Names in `env` take precedence over those in it.
    pub env_file: Option<PathBuf>,
    /// The secrets without which nothing is deployed, each with where it is read from, or `None` if
    /// Cutover keeps it.
    pub secrets: BTreeMap<String, Option<Secret>>,
    /// Those of them that the app finds as files below `/run/secrets`.
    pub secret_files: BTreeSet<String>,
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
    /// The apps that it reaches by their names.
    pub links: Vec<AppName>,
    pub container: Container,
}

/// The value of an environment variable, or where it is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    From(Secret),
}

impl Run {
    /// The secrets that have to be kept by Cutover and are not among these.
    pub fn missing<'k>(&self, kept: impl Iterator<Item = &'k str> + Clone) -> Vec<&str> {
        let needed = self.secrets.iter().filter(|(_, place)| place.is_none());
        let needed = needed.map(|(name, _)| name.as_str());
        needed
            .filter(|name| !kept.clone().any(|it| it == *name))
            .collect()
    }
}

/// That a secret is missing, and what to do about it.
pub fn not_kept(app: &AppName, name: &str) -> String {
    format!(
        "`apps.{app}.run.secrets` names `{name}`, which Cutover does not keep: run `cutover secret set {app} \
         {name}`, or nothing of the app is deployed"
    )
}

/// `links_at`: gets the places of the links in the file.
pub(super) fn run(mut section: Section<'_>, grants: &Grants<'_>, links_at: &mut Vec<usize>) -> Run {
    let env = section.read("env", environment);
    let env_file = section.read("env_file", path);
    let mut targets = BTreeSet::new();
    let mut secret_files = BTreeSet::new();
    let secrets = section.read("secrets", |node| {
        secrets(
            node,
            env.as_ref().unwrap_or(&BTreeMap::new()),
            &mut secret_files,
        )
    });
    if !secret_files.is_empty() {
        targets.insert("/run/secrets".to_owned());
    }
    let replicas = section.read("replicas", |node| node.integer(1, 100));
    let memory = section.read("memory", memory);
    let cpus = section.read("cpus", cpus);
    let stop_grace = section.read("stop_grace", duration);
    let capabilities = section.read("capabilities", capabilities);
    let volumes = section.read("volumes", |node| volumes(node, grants, &mut targets));
    let links = section.read("links", |node| links(node, links_at));
    let container = container(&mut section, grants, &mut targets);
    section.done();
    Run {
        env: env.unwrap_or_default(),
        env_file,
        secrets: secrets.unwrap_or_default(),
        secret_files,
        replicas: replicas.unwrap_or(1) as u32,
        memory,
        cpus,
        stop_grace: stop_grace.unwrap_or(Duration::from_secs(10)),
        capabilities: capabilities.unwrap_or_default(),
        volumes: volumes.unwrap_or_default(),
        links: links.unwrap_or_default(),
        container,
    }
}

fn links(node: Node<'_>, at: &mut Vec<usize>) -> Option<Vec<AppName>> {
    const EXPECTED: &str = "an array of apps of this file such as [\"api\"]";
    let mut all = Vec::new();
    for node in node.array(EXPECTED)? {
        match node.str("the name of an app")?.parse() {
            Ok(name) => {
                all.push(name);
                at.push(node.start);
            }
            Err(_) => drop(node.wrong::<()>("the name of an app")),
        }
    }
    Some(all)
}

/// Messages do not show the values.
pub(super) fn environment(node: Node<'_>) -> Option<BTreeMap<String, Value>> {
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

/// Whether `file` is `true`, and no path to read the secret from.
fn is_file(table: &DeTable<'_>) -> bool {
    matches!(
        table.get("file").map(|it| it.get_ref()),
        Some(DeValue::Boolean(true))
    )
}

/// An array of the names of kept secrets, or a table that says for each name where it is read from,
/// `true` for a kept one; with `file = true` it becomes one of `files`.
fn secrets(
    node: Node<'_>,
    env: &BTreeMap<String, Value>,
    files: &mut BTreeSet<String>,
) -> Option<BTreeMap<String, Option<Secret>>> {
    const EXPECTED: &str = "an array of names such as [\"DATABASE_URL\"], or a table such as \
                            { DATABASE_URL = true, API_KEY = { env = \"HELLO_API_KEY\" }, TLS_KEY = { file = true } }";
    let mut all = BTreeMap::new();
    let mut add = |name: &str, node: &Node<'_>, secret| {
        if !env_file::is_name(name) {
            return node.report::<()>(format!(
                "`{}` is not a secret's name: expected letters, digits and `_`, no digit first",
                name.escape_debug()
            ));
        }
        if env.contains_key(name) {
            return node.report(format!(
                "`{}` names `{name}`, which `env` has too: expected it in one of them",
                node.path
            ));
        }
        all.insert(name.to_owned(), secret);
        None
    };
    if let DeValue::Array(_) = node.value.get_ref() {
        for node in node.array(EXPECTED)? {
            if let DeValue::String(name) = node.value.get_ref() {
                add(name, &node, None);
            } else {
                node.wrong_unshown::<()>("the name of a secret");
            }
        }
        return Some(all);
    }
    for (name, node) in node.entries(EXPECTED)? {
        let secret = match node.value.get_ref() {
            DeValue::Boolean(true) => None,
            DeValue::Table(table) if !table.contains_key("env") && !table.contains_key("file") => {
                node.wrong_unshown::<()>(
                    "where it is read from, `{ env = \"NAME\" }` or `{ file = \"PATH\" }`, or for one that \
                     Cutover keeps `true` or `{ file = true }`; the secret itself does not belong in this file",
                );
                continue;
            }
            DeValue::Table(table) if is_file(table) => {
                let mut section = Node {
                    path: node.path.clone(),
                    ..node
                }
                .section();
                section.read("file", |_| Some(()));
                let env = section.read("env", |node| secret_in("env", node));
                section.done();
                files.insert(name.to_owned());
                env
            }
            _ => {
                let place = Node {
                    path: node.path.clone(),
                    ..node
                };
                match secret(place) {
                    Some(secret) => Some(secret),
                    None => continue,
                }
            }
        };
        add(name, &node, secret);
    }
    Some(all)
}
