//! The types of values that several keys share.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::file::Node;
use super::path_filter::PathFilter;
use super::{Pattern, Secret, paths, units};

pub(super) fn socket(node: &Node<'_>) -> Option<SocketAddr> {
    const EXPECTED: &str = "an IP address and a port such as \"127.0.0.1:9000\"";
    let text = node.str(EXPECTED)?;
    text.parse().ok().or_else(|| node.wrong(EXPECTED))
}

/// Networks such as `10.0.0.0/8`; a single address is a network too.
pub(super) fn networks(node: Node<'_>) -> Option<Vec<IpNet>> {
    const EXPECTED: &str = "networks such as [\"10.0.0.0/8\", \"192.0.2.7\"]";
    let network = |node: Node<'_>| {
        let text = node.str(EXPECTED)?;
        let address = text.parse::<IpAddr>().map(IpNet::from);
        match address.or_else(|_| text.parse()) {
            Ok(network) => Some(network),
            Err(_) => node.wrong(EXPECTED),
        }
    };
    node.array(EXPECTED)?.into_iter().map(network).collect()
}

/// Like [`networks`], but refuses an empty array, which would let nobody in.
pub(super) fn some_networks(node: Node<'_>) -> Option<Vec<IpNet>> {
    match node.value.get_ref() {
        DeValue::Array(values) if values.is_empty() => {
            node.wrong("at least one network; without this key all are allowed")
        }
        _ => networks(node),
    }
}

/// A path on this machine.
pub(super) fn path(node: Node<'_>) -> Option<PathBuf> {
    let text = node.str("a path")?;
    paths::on_this_machine(node.file.folder, text)
        .map_or_else(|expected| node.wrong(expected), Some)
}

/// Where a secret is read from. Messages never show the value: it may be the secret itself.
pub(super) fn secret(node: Node<'_>) -> Option<Secret> {
    const EXPECTED: &str = "where to read the secret from, `{ env = \"NAME\" }` (an environment variable of the agent) \
                            or `{ file = \"PATH\" }`; the secret itself does not belong in this file";
    let mut entries = node.entries(EXPECTED)?;
    let (kind, value) = match (entries.pop(), entries.pop()) {
        (Some(one @ ("env" | "file", _)), None) => one,
        _ => return node.wrong_unshown(EXPECTED),
    };
    secret_in(kind, value)
}

/// The same as one key of several: `kind` is `env` or `file`.
pub(super) fn secret_in(kind: &str, value: Node<'_>) -> Option<Secret> {
    let DeValue::String(text) = value.value.get_ref() else {
        return value.wrong_unshown("a string");
    };
    match kind {
        "env" => {
            let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let good = !text.is_empty()
                && text.chars().all(name)
                && !text.starts_with(|c: char| c.is_ascii_digit());
            match good {
                true => Some(Secret::Env(text.to_string())),
                false => value
                    .wrong_unshown("the name of an environment variable: letters, digits and `_`"),
            }
        }
        _ => path(value).map(Secret::File),
    }
}

/// Whether `name`, the key of `node`, can name a variable; reports it if not.
pub(super) fn variable_name(name: &str, node: &Node<'_>) -> bool {
    let bad = name.is_empty() || name.contains(['=', '\0']) || name.contains(char::is_whitespace);
    if bad {
        let text = format!(
            "`{}` is not a variable name: it must not be empty or contain spaces or `=`",
            name.escape_debug()
        );
        node.file.report(node.start, text);
    }
    !bad
}

/// Names and values for build arguments or labels. Messages do not show the values.
pub(super) fn variables(node: Node<'_>) -> Option<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for (name, node) in
        node.entries("a table of names and values such as { RUST_LOG = \"info\" }")?
    {
        if !variable_name(name, &node) {
            continue;
        }
        match node.value.get_ref() {
            DeValue::String(text) if !text.contains('\0') => {
                variables.insert(name.to_owned(), text.to_string());
            }
            DeValue::String(_) => {
                node.wrong_unshown::<()>("a string without NUL characters");
            }
            _ => {
                node.wrong_unshown::<()>(format!("a string: {name} = \"…\", with quotes"));
            }
        }
    }
    Some(variables)
}

/// One line of text that is not empty.
pub(super) fn line(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str = "one line of text";
    let text = node.str(EXPECTED)?;
    match text.trim().is_empty() || text.contains(char::is_control) {
        true => node.wrong(EXPECTED),
        false => Some(text.to_owned()),
    }
}

pub(super) fn inside(node: Node<'_>) -> Option<String> {
    let text = node.str("a path inside the repository")?;
    paths::inside(text).map_or_else(|expected| node.wrong(expected), Some)
}

pub(super) fn duration(node: Node<'_>) -> Option<Duration> {
    let text = node.str(units::DURATION)?;
    units::duration(text).or_else(|| node.wrong(units::DURATION))
}

pub(super) fn memory(node: Node<'_>) -> Option<u64> {
    let text = node.str(units::MEMORY)?;
    units::memory(text).or_else(|| node.wrong(units::MEMORY))
}

pub(super) fn cpus(node: Node<'_>) -> Option<f64> {
    let number = node.float().filter(|n| (0.01..=1024.0).contains(n));
    number.or_else(|| node.wrong("a number of processors such as 0.5 or 2.0"))
}

pub(super) fn positive(node: &Node<'_>) -> Option<Duration> {
    let text = node.str(units::DURATION)?;
    let duration = units::duration(text).filter(|duration| !duration.is_zero());
    duration.or_else(|| node.wrong(format!("{}, greater than zero", units::DURATION)))
}

/// One pattern for names of branches or tags, or an array of them.
pub(super) fn patterns(node: Node<'_>) -> Option<Vec<Pattern>> {
    const EXPECTED: &str = "a pattern such as \"v*\", or an array of them";
    let one = |node: &Node<'_>| {
        let text = node.str(EXPECTED)?;
        match Pattern::parse(text) {
            Ok(pattern) if !text.is_empty() => Some(pattern),
            _ => node.wrong(EXPECTED),
        }
    };
    match node.value.get_ref() {
        DeValue::Array(_) => {
            let nodes = node.array(EXPECTED)?;
            Some(nodes.iter().filter_map(one).collect())
        }
        _ => one(&node).map(|pattern| vec![pattern]),
    }
}

/// Path patterns, at least one of which a changed path must match.
pub(super) fn in_repository(node: Node<'_>) -> Option<PathFilter> {
    const EXPECTED: &str = "a path pattern such as \"api/**\", or an array of them";
    let one = |node: &Node<'_>| {
        let text = node.str(EXPECTED)?.to_owned();
        match PathFilter::parse(std::slice::from_ref(&text)) {
            Ok(_) => Some(text),
            Err(_) => node.wrong(EXPECTED),
        }
    };
    let globs: Vec<String> = match node.value.get_ref() {
        DeValue::Array(values) if values.is_empty() => {
            return node.wrong("at least one path; without `paths` every push is deployed");
        }
        DeValue::Array(_) => node.array(EXPECTED)?.iter().filter_map(one).collect(),
        _ => one(&node).into_iter().collect(),
    };
    // An invalid pattern has already been reported.
    PathFilter::parse(&globs).ok()
}
