//! `[apps.NAME.build]`: what an app's image is built from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::container::{hosts, shm_size};
use super::file::{Node, Section};
use super::frontends::frontends;
use super::pull::pull;
use super::run::environment;
use super::values::{inside, path, positive, secret};
use super::{Frontends, Image, Pull, Secret, Site, Value};

/// What the Dockerfile finds under a name that it has no stage for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A folder of the repository, in the form of [`Build::context`].
    Folder(String),
    Image(Image),
}

#[derive(Debug, Clone)]
pub struct Build {
    /// A folder of files that is served as it is, without a Dockerfile.
    pub site: Option<Site>,
    /// The program that builds in place of Docker, and its arguments, in which `{image}` stands for the
    /// name that its image is to have.
    pub command: Option<Vec<String>>,
    /// Where images are pushed to as well: a name in a registry, without a tag.
    pub push: Option<String>,
    /// Images in registries that were pushed with what their steps have cached.
    pub cache_from: Vec<Image>,
    /// Where each image is pushed to with that.
    pub cache_to: Option<Image>,
    /// The image that lists what an image contains (SBOM). Absent: it is not listed.
    pub sbom: Option<Image>,
    /// The folder of the repository that the builder gets, `.` for all of it. Relative, without `..` or
    /// repeated slashes.
    pub context: String,
    /// What `FROM`, `COPY --from` and `RUN --mount=from` find under these names.
    pub contexts: BTreeMap<String, Named>,
    /// The Dockerfile's path from the repository's root, or else below the context folder, in the same
    /// form. Absent: `Dockerfile` in the context folder, or else in the root.
    pub dockerfile: Option<String>,
    pub frontends: Frontends,
    pub pull: Pull,
    /// The context gets a `.git` with the commit.
    pub git_dir: bool,
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
            cache_from: Vec::new(),
            cache_to: None,
            sbom: None,
            context: ".".into(),
            contexts: BTreeMap::new(),
            dockerfile: None,
            frontends: Frontends::default(),
            pull: Pull::default(),
            git_dir: false,
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

/// How many images `cache_from` may name.
const MOST_CACHES: usize = 8;

/// What only a Dockerfile makes use of.
const OF_A_DOCKERFILE: [&str; 14] = [
    "cache_from",
    "cache_to",
    "contexts",
    "dockerfile",
    "frontends",
    "pull",
    "sbom",
    "target",
    "secrets",
    "ssh",
    "platform",
    "network",
    "extra_hosts",
    "shm_size",
];
/// What a program makes use of too.
const OF_A_PROGRAM: [&str; 4] = ["context", "git_dir", "args", "args_file"];

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
        cache_from: section.read("cache_from", images).unwrap_or_default(),
        cache_to: section.read("cache_to", tagged),
        sbom: section.read("sbom", scanner),
        context: section.read("context", inside).unwrap_or(default.context),
        contexts: section.read("contexts", contexts).unwrap_or_default(),
        dockerfile: section.read("dockerfile", dockerfile),
        frontends: section
            .read("frontends", frontends)
            .unwrap_or(default.frontends),
        pull: section.read("pull", pull).unwrap_or_default(),
        git_dir: section
            .read("git_dir", |node| node.boolean())
            .unwrap_or_default(),
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
    if build.git_dir && build.context != "." {
        section.report(format!(
            "`{}` cannot be combined with `context`: `.git` is in the repository's root; remove one of them",
            section.key("git_dir")
        ));
    }
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

fn images(node: Node<'_>) -> Option<Vec<Image>> {
    const EXPECTED: &str = "an array of images such as [\"registry.example.com/acme/hello:cache\"]";
    let images = node.array(EXPECTED)?;
    if images.len() > MOST_CACHES {
        return node.wrong_unshown(format!(
            "at most {MOST_CACHES} images: each build asks the registry of each"
        ));
    }
    images.into_iter().map(tagged).collect()
}

fn tagged(node: Node<'_>) -> Option<Image> {
    const EXPECTED: &str =
        "an image with its tag, such as \"registry.example.com/acme/hello:cache\"";
    let text = node.str(EXPECTED)?;
    match text.parse::<Image>() {
        // With the tag that it is given.
        Ok(image) if image.to_string() == text && image.digest.is_none() => Some(image),
        _ => node.wrong(EXPECTED),
    }
}

fn scanner(node: Node<'_>) -> Option<Image> {
    const EXPECTED: &str =
        "the image of a scanner, such as \"docker/buildkit-syft-scanner:stable-1\"";
    match node.str(EXPECTED)?.parse() {
        Ok(image) => Some(image),
        Err(_) => node.wrong(EXPECTED),
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

fn contexts(node: Node<'_>) -> Option<BTreeMap<String, Named>> {
    const EXPECTED: &str = "a table of names and folders of the repository, or images, such as { shared = \"libs/shared\", \
                            base = \"docker-image://debian:12-slim\" }";
    let mut all = BTreeMap::new();
    for (name, node) in node.entries(EXPECTED)? {
        let good = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !name.chars().all(good)
            || name.eq_ignore_ascii_case("scratch")
        {
            node.report::<()>(format!(
                "`{}` is not the name of a context: expected letters, digits, `_`, `-`, `.`, `:` and `/`, as in \
                 `COPY --from=shared`, and not `scratch`",
                name.escape_debug()
            ));
            continue;
        }
        all.extend(named(node).map(|of| (name.to_owned(), of)));
    }
    Some(all)
}

fn named(node: Node<'_>) -> Option<Named> {
    const EXPECTED: &str =
        "a folder of the repository, or an image such as \"docker-image://debian:12-slim\"";
    let text = node.str(EXPECTED)?;
    match text.strip_prefix("docker-image://").map(str::parse) {
        Some(Ok(image)) => Some(Named::Image(image)),
        Some(Err(_)) => node.wrong(EXPECTED),
        None if text.contains("://") => node.wrong(EXPECTED),
        None => inside(node).map(Named::Folder),
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
