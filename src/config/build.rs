//! `[apps.NAME.build]`: what an app's image is built from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::container::{hosts, shm_size};
use super::file::{Node, Section};
use super::run::environment;
use super::values::{inside, path, positive, secret};
use super::{Image, Secret, Site, Value};

#[derive(Debug, Clone)]
pub struct Build {
    /// A folder of files that is served as it is, without a Dockerfile.
    pub site: Option<Site>,
    /// The program that builds in place of Docker, and its arguments, in which `{image}` stands for the
    /// name that its image is to have.
    pub command: Option<Vec<String>>,
    /// Where images are pushed to as well: a name in a registry, without a tag.
    pub push: Option<String>,
    /// The folder of the repository that the builder gets, `.` for all of it. Relative, without `..` or
    /// repeated slashes.
    pub context: String,
    /// The Dockerfile's path from the repository's root, or else below the context folder, in the same
    /// form. Absent: `Dockerfile` in the context folder, or else in the root.
    pub dockerfile: Option<String>,
    /// The stage that becomes the image. Absent: the last.
    pub target: Option<String>,
    pub args: BTreeMap<String, Value>,
    /// A file of `NAME=VALUE` lines. Names in `args` take precedence over those in it.
    pub args_file: Option<PathBuf>,
    /// What `RUN --mount=type=secret` mounts, by id.
    pub secrets: BTreeMap<String, Secret>,
    /// What `RUN --mount=type=ssh` reaches, by id: the socket of an SSH agent, or a private key.
    pub ssh: BTreeMap<String, Secret>,
    /// `linux/amd64` and the like. Absent: the engine's own.
    pub platform: Option<String>,
    /// The network of the steps, `host` or `none`. Absent: the engine's default.
    pub network: Option<String>,
    /// Addresses by host name, as in /etc/hosts.
    pub extra_hosts: BTreeMap<String, String>,
    /// The size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    pub timeout: Duration,
}

impl Default for Build {
    fn default() -> Self {
        Self {
            site: None,
            command: None,
            push: None,
            context: ".".into(),
            dockerfile: None,
            target: None,
            args: BTreeMap::new(),
            args_file: None,
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            platform: None,
            network: None,
            extra_hosts: BTreeMap::new(),
            shm_size: None,
            timeout: Duration::from_secs(30 * 60),
        }
    }
}

/// What only a Dockerfile makes use of.
const OF_A_DOCKERFILE: [&str; 8] = [
    "dockerfile",
    "target",
    "secrets",
    "ssh",
    "platform",
    "network",
    "extra_hosts",
    "shm_size",
];
/// What a program makes use of too.
const OF_A_PROGRAM: [&str; 3] = ["context", "args", "args_file"];

pub(super) fn build(mut section: Section<'_>, site: Option<Site>) -> Build {
    let is_program = section.has("command");
    let unused = match (&site, is_program) {
        (_, true) => OF_A_DOCKERFILE.to_vec(),
        (Some(_), false) => [&OF_A_DOCKERFILE[..], &OF_A_PROGRAM].concat(),
        (None, false) => Vec::new(),
    };
    let instead = if is_program {
        "`command`"
    } else {
        "`kind = \"static\"`"
    };
    for key in unused
        .into_iter()
        .filter(|key| section.has(key))
        .collect::<Vec<_>>()
    {
        section.report(format!(
            "`{}` cannot be combined with {instead}, which needs no Dockerfile: remove one of them",
            section.key(key)
        ));
    }
    let default = Build::default();
    let build = Build {
        site,
        command: section.read("command", program),
        push: section.read("push", push),
        context: section.read("context", inside).unwrap_or(default.context),
        dockerfile: section.read("dockerfile", dockerfile),
        target: section.read("target", target),
        args: section.read("args", environment).unwrap_or_default(),
        args_file: section.read("args_file", path),
        secrets: section.read("secrets", secrets).unwrap_or_default(),
        ssh: section.read("ssh", ssh).unwrap_or_default(),
        platform: section.read("platform", platform),
        network: section.read("network", network),
        extra_hosts: section.read("extra_hosts", hosts).unwrap_or_default(),
        shm_size: section.read("shm_size", shm_size),
        timeout: section
            .read("timeout", |node| positive(&node))
            .unwrap_or(default.timeout),
    };
    section.done();
    build
}

fn program(node: Node<'_>) -> Option<Vec<String>> {
    const EXPECTED: &str = "a program and its arguments such as [\"pack\", \"build\", \"{image}\"]";
    let words = node.array(EXPECTED)?;
    let words = words.iter().map(|word| match word.str(EXPECTED)? {
        text if text.contains('\0') => node.wrong_unshown(EXPECTED),
        text => Some(text.to_owned()),
    });
    let argv: Vec<String> = words.collect::<Option<_>>()?;
    match argv.first().is_some_and(|program| !program.is_empty()) {
        true => Some(argv),
        false => node.wrong_unshown(EXPECTED),
    }
}

fn push(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str = "the name of an image without a tag, such as \"registry.example.com/acme/hello\"; each \
                            image gets its commit's digits as its tag";
    let text = node.str(EXPECTED)?;
    match text.parse::<Image>() {
        Ok(image) if image.name == text => Some(image.name),
        _ => node.wrong(EXPECTED),
    }
}

fn dockerfile(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str = "the path of the Dockerfile, from the repository's root";
    match node.str(EXPECTED)? {
        // A folder.
        "" | "." => node.wrong(EXPECTED),
        _ => inside(node),
    }
}

pub(super) fn target(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str = "the name of a stage of the Dockerfile, as in `FROM … AS run`";
    let text = node.str(EXPECTED)?;
    let good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let named = !text.is_empty() && text.chars().all(good);
    named
        .then(|| text.to_owned())
        .or_else(|| node.wrong(EXPECTED))
}

fn secrets(node: Node<'_>) -> Option<BTreeMap<String, Secret>> {
    const EXPECTED: &str = "a table of ids and places to read a secret from, such as \
                            { npmrc = { file = \"/etc/cutover/npmrc\" }, token = { env = \"NPM_TOKEN\" } }";
    by_id(node, EXPECTED, "`RUN --mount=type=secret,id=npmrc`")
}

fn ssh(node: Node<'_>) -> Option<BTreeMap<String, Secret>> {
    const EXPECTED: &str = "a table of ids and keys or SSH agents, such as \
                            { default = { file = \"/etc/cutover/id_ed25519\" }, mine = { env = \"SSH_AUTH_SOCK\" } }";
    by_id(node, EXPECTED, "`RUN --mount=type=ssh,id=default`")
}

fn by_id(node: Node<'_>, expected: &'static str, mount: &str) -> Option<BTreeMap<String, Secret>> {
    let mut all = BTreeMap::new();
    for (id, node) in node.entries(expected)? {
        let good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if id.is_empty() || !id.chars().all(good) {
            node.report::<()>(format!(
                "`{}` is not an id: expected letters, digits, `_`, `-` and `.`, as in {mount}",
                id.escape_debug()
            ));
            continue;
        }
        all.extend(secret(node).map(|secret| (id.to_owned(), secret)));
    }
    Some(all)
}

fn platform(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str = "a platform such as \"linux/amd64\" or \"linux/arm/v7\"";
    let text = node.str(EXPECTED)?;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let part = |part: &str| !part.is_empty() && part.chars().all(good);
    let good = (2..=3).contains(&text.split('/').count()) && text.split('/').all(part);
    good.then(|| text.to_owned())
        .or_else(|| node.wrong(EXPECTED))
}

fn network(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str = "\"default\", \"host\" or \"none\"";
    match node.str(EXPECTED)? {
        "default" => None,
        text @ ("host" | "none") => Some(text.to_owned()),
        _ => node.wrong(EXPECTED),
    }
}
