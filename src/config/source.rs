//! `[apps.NAME.source]`: how an app's repository is accessed, and those of its submodules.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::de::DeValue;

use super::Secret;
use super::file::{Node, Section};
use super::values::{line, path, secret};

#[derive(Debug, Clone, Default)]
pub struct Source {
    /// For HTTPS: the user name that goes with the token. Absent: `x-access-token`.
    pub username: Option<String>,
    /// For HTTPS.
    pub token: Option<Secret>,
    /// For SSH: the file of the private key.
    pub ssh_key: Option<PathBuf>,
    /// The SSH server's pinned host key, in the form `SHA256:…` that `ssh-keygen -l` prints.
    /// Absent: known_hosts is used.
    pub host_key: Option<String>,
    /// Whether submodules stay empty folders.
    pub without_submodules: bool,
    /// Whose signature a commit must have. `None`: nobody's.
    pub signers: Option<Signers>,
    /// Hosts other than the repository's from which submodules are fetched, in lower case.
    pub hosts: BTreeMap<String, Source>,
}

/// Whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signers {
    Keys {
        /// Public keys, as in a `.pub` file.
        ssh: Vec<String>,
        /// Files of public keys, as `gpg --export` writes them.
        gpg: Vec<PathBuf>,
    },
    /// A file of allowed signers, as for git's `gpg.ssh.allowedSignersFile`.
    File(PathBuf),
}

pub(super) fn source(mut section: Section<'_>) -> Source {
    let mut source = access(&mut section);
    source.without_submodules = section.read("submodules", |node| node.boolean()) == Some(false);
    source.signers = section.read("require_signature", signers);
    source.hosts = section.read("hosts", hosts).unwrap_or_default();
    section.done();
    source
}

fn access(section: &mut Section<'_>) -> Source {
    Source {
        username: section.read("username", line),
        token: section.read("token", secret),
        ssh_key: section.read("ssh_key", path),
        host_key: section.read("host_key", host_key),
        ..Source::default()
    }
}

fn signers(node: Node<'_>) -> Option<Signers> {
    const EXPECTED: &str = "an array of SSH public keys and files of OpenPGP ones, such as \
                            [\"ssh-ed25519 AAAA… ann@example.com\", { gpg = \"/etc/cutover/bob.asc\" }], or the path of a \
                            file of allowed signers";
    if let DeValue::String(_) = node.value.get_ref() {
        return path(node).map(Signers::File);
    }
    let key = |node: &Node<'_>| {
        let text = node.str(EXPECTED)?;
        let mut words = text.split_whitespace();
        let kind = words.next().unwrap_or_default();
        let data = words.next().unwrap_or_default();
        let known =
            kind.starts_with("ssh-") || kind.starts_with("sk-") || kind.starts_with("ecdsa-");
        let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
        match known
            && data.len() > 20
            && data.chars().all(base64)
            && !text.contains(char::is_control)
        {
            true => Some(text.to_owned()),
            false => node.wrong(EXPECTED),
        }
    };
    let file = |node: &Node<'_>| {
        let mut entries = node.entries(EXPECTED)?;
        match (entries.pop(), entries.pop()) {
            (Some(("gpg", file)), None) => path(file),
            _ => node.wrong(EXPECTED),
        }
    };
    let (mut ssh, mut gpg) = (Vec::new(), Vec::new());
    for node in node.array(EXPECTED)? {
        match node.value.get_ref() {
            DeValue::Table(_) => gpg.push(file(&node)?),
            _ => ssh.push(key(&node)?),
        }
    }
    match ssh.is_empty() && gpg.is_empty() {
        // Nobody could deploy.
        true => node.wrong("at least one key; without this key no signature is required"),
        false => Some(Signers::Keys { ssh, gpg }),
    }
}

fn host_key(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str =
        "the fingerprint that `ssh-keygen -l` prints, `SHA256:` and 43 characters";
    let text = node.str(EXPECTED)?;
    let base64 = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    text.strip_prefix("SHA256:")
        .filter(|print| print.len() == 43 && print.chars().all(base64))
        .map_or_else(|| node.wrong(EXPECTED), |_| Some(text.to_owned()))
}

fn hosts(node: Node<'_>) -> Option<BTreeMap<String, Source>> {
    const EXPECTED: &str =
        "a section for each host, such as `[apps.NAME.source.hosts.\"git.example.com\"]`";
    let mut all = BTreeMap::new();
    for (name, node) in node.entries(EXPECTED)? {
        let name = name.to_ascii_lowercase();
        let good = |c: char| c.is_ascii_alphanumeric() || ".-[]:".contains(c);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let is_port = bare.matches(':').count() == 1;
        if name.is_empty() || !name.chars().all(good) || is_port {
            node.report::<()>(format!(
                "`{}` is not a host: expected a name such as \"git.example.com\", without a port",
                name.escape_debug()
            ));
        }
        let mut section = node.section();
        let source = access(&mut section);
        section.done();
        all.insert(name, source);
    }
    Some(all)
}
