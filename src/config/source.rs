//! `[apps.NAME.source]`: how an app's repository is accessed, and those of its submodules.

use std::collections::BTreeMap;
use std::path::PathBuf;

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
    /// Hosts other than the repository's from which submodules are fetched, in lower case.
    pub hosts: BTreeMap<String, Source>,
}

pub(super) fn source(mut section: Section<'_>) -> Source {
    let mut source = access(&mut section);
    source.without_submodules = section.read("submodules", |node| node.boolean()) == Some(false);
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
