//! The keys of `[apps.NAME.run]` that are the engine's own: each is passed on as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use toml::de::DeValue;

use super::devices::{Device, Gpus, LogDriver, devices, gpus, log_driver, networks};
use super::file::{Node, Section};
use super::grants::Grants;
use super::units;
use super::values::variables;
use super::volumes::mount_point;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Paths that are kept in memory, each with its largest size in bytes.
    pub tmpfs: BTreeMap<String, Option<u64>>,
    /// The user, and after a colon the group, in place of the image's.
    pub user: Option<String>,
    /// Whether the container's own file system is read-only.
    pub read_only: bool,
    /// Whether an init process passes signals on and reaps orphans.
    pub init: bool,
    /// The signal that asks it to end, in place of the image's.
    pub stop_signal: Option<String>,
    /// The soft and the hard limit by name.
    pub ulimits: BTreeMap<String, (i64, i64)>,
    /// The size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    /// Addresses by host name, as in /etc/hosts.
    pub extra_hosts: BTreeMap<String, String>,
    pub dns: Vec<IpAddr>,
    pub labels: BTreeMap<String, String>,
    pub devices: Vec<Device>,
    pub gpus: Option<Gpus>,
    /// Networks of others that it joins.
    pub networks: Vec<String>,
    /// Whether it may do whatever root of this machine may.
    pub privileged: bool,
    /// Whether it has this machine's network instead of one of its own.
    pub host_network: bool,
    /// Whether it sees this machine's processes.
    pub host_pid: bool,
    /// Absent: the engine keeps the output, where Cutover reads it.
    pub log: Option<LogDriver>,
}

/// From setrlimit(2), as Docker names them.
const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// The signals that ask a process to end, or that apps give that meaning.
const SIGNALS: [&str; 9] = [
    "HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "WINCH", "RTMIN+3",
];

/// `targets`: where volumes are mounted.
pub(super) fn container(
    section: &mut Section<'_>,
    grants: &Grants<'_>,
    targets: &mut BTreeSet<String>,
) -> Container {
    let host = |node: Node<'_>| match node.str("\"host\"")? {
        "host" => grants.allow(&node, true),
        _ => node.wrong("\"host\""),
    };
    let privileged = section.read("privileged", |node| match node.boolean()? {
        true => grants.allow(&node, true),
        false => Some(false),
    });
    let host_network = section.read("network", host);
    let host_pid = section.read("pid", host);
    if host_network == Some(true) && section.has("networks") {
        section.report(format!(
            "`{}` and `networks`: expected one of them, since this machine's network is no other's",
            section.key("network")
        ));
    }
    Container {
        privileged: privileged.unwrap_or(false),
        host_network: host_network.unwrap_or(false),
        host_pid: host_pid.unwrap_or(false),
        tmpfs: section
            .read("tmpfs", |node| tmpfs(node, targets))
            .unwrap_or_default(),
        user: section.read("user", user),
        read_only: section
            .read("read_only", |node| node.boolean())
            .unwrap_or(false),
        init: section.read("init", |node| node.boolean()).unwrap_or(true),
        stop_signal: section.read("stop_signal", signal),
        ulimits: section.read("ulimits", ulimits).unwrap_or_default(),
        shm_size: section.read("shm_size", shm_size),
        extra_hosts: section.read("extra_hosts", hosts).unwrap_or_default(),
        dns: section.read("dns", addresses).unwrap_or_default(),
        labels: section.read("labels", labels).unwrap_or_default(),
        devices: section.read("devices", devices).unwrap_or_default(),
        gpus: section.read("gpus", gpus),
        networks: section.read("networks", networks).unwrap_or_default(),
        log: section.read("log", log_driver),
    }
}

pub(super) fn shm_size(node: Node<'_>) -> Option<u64> {
    let text = node.str(units::SIZE)?;
    let size = units::size(text).filter(|size| *size > 0);
    size.or_else(|| node.wrong(units::SIZE))
}

fn tmpfs(node: Node<'_>, targets: &mut BTreeSet<String>) -> Option<BTreeMap<String, Option<u64>>> {
    const EXPECTED: &str =
        "an array of paths such as [\"/tmp\"] or [{ target = \"/tmp\", size = \"64m\" }]";
    let mut one = |node: Node<'_>| {
        if let DeValue::String(text) = node.value.get_ref() {
            return Some((mount_point(&node, text, targets)?, None));
        }
        let mut section = node.section();
        let target = section.required("target", "the path in the container", |node| {
            mount_point(
                &node,
                node.str("an absolute path in the container")?,
                targets,
            )
        });
        let size = section.read("size", |node| {
            let text = node.str(units::SIZE)?;
            let size = units::size(text).filter(|size| *size > 0);
            size.or_else(|| node.wrong(units::SIZE))
        });
        section.done();
        Some((target?, size))
    };
    let nodes = node.array(EXPECTED)?.into_iter();
    nodes
        .map(&mut one)
        .collect::<Vec<_>>()
        .into_iter()
        .collect()
}

fn user(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str = "a user such as \"app\", \"1000\" or \"1000:1000\"";
    let text = node.str(EXPECTED)?;
    let part = |part: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        !part.is_empty() && part.chars().all(good) && !part.starts_with('-')
    };
    let good = text.split(':').count() <= 2 && text.split(':').all(part);
    good.then(|| text.to_owned())
        .or_else(|| node.wrong(EXPECTED))
}

fn signal(node: Node<'_>) -> Option<String> {
    let expected = format!(
        "a signal, one of {}",
        SIGNALS.map(|it| format!("SIG{it}")).join(", ")
    );
    let text = node.str(&expected)?;
    let name = text.strip_prefix("SIG").unwrap_or(text);
    match SIGNALS.contains(&name) {
        true => Some(format!("SIG{name}")),
        false => node.wrong(expected),
    }
}

fn ulimits(node: Node<'_>) -> Option<BTreeMap<String, (i64, i64)>> {
    const EXPECTED: &str = "a table such as { nofile = 65536 } or \
                            { nofile = { soft = 1024, hard = 65536 } }";
    const MOST: u64 = i64::MAX as u64;
    let mut all = BTreeMap::new();
    for (name, node) in node.entries(EXPECTED)? {
        if !ULIMITS.contains(&name) {
            node.file.report(
                node.start,
                format!(
                    "`{}` is not a limit: expected one of {}",
                    name.escape_debug(),
                    ULIMITS.join(", ")
                ),
            );
            continue;
        }
        let limit = match node.value.get_ref() {
            DeValue::Table(_) => {
                let mut section = node.section();
                let number = |node: Node<'_>| node.integer(0, MOST);
                let soft = section.required("soft", "a whole number", number);
                let hard = section.required("hard", "a whole number", number);
                if soft > hard && hard.is_some() {
                    section.report(format!(
                        "`{}` is above `hard`: expected at most that",
                        section.key("soft")
                    ));
                }
                section.done();
                soft.zip(hard)
            }
            _ => node.integer(0, MOST).map(|both| (both, both)),
        };
        let limit = limit.map(|(soft, hard)| (soft as i64, hard as i64));
        all.extend(limit.map(|limit| (name.to_owned(), limit)));
    }
    Some(all)
}

pub(super) fn hosts(node: Node<'_>) -> Option<BTreeMap<String, String>> {
    const EXPECTED: &str = "a table of host names and addresses such as { db = \"192.0.2.7\" }; \
                            \"host-gateway\" stands for this machine";
    let mut all = BTreeMap::new();
    for (name, node) in node.entries(EXPECTED)? {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let named = (1..=253).contains(&name.len()) && name.chars().all(good);
        let text = match node.value.get_ref() {
            DeValue::String(text) if named => text,
            _ => {
                node.wrong::<()>(EXPECTED);
                continue;
            }
        };
        if text != "host-gateway" && text.parse::<IpAddr>().is_err() {
            node.wrong::<()>("an IP address or \"host-gateway\"");
            continue;
        }
        all.insert(name.to_owned(), text.to_string());
    }
    Some(all)
}

/// Cutover's own labels tell it what is its own.
fn labels(node: Node<'_>) -> Option<BTreeMap<String, String>> {
    for (name, node) in node.entries("a table of labels such as { team = \"web\" }")? {
        if name.starts_with("cutover.") {
            let text = format!(
                "`{}` is one of Cutover's own labels: expected another name",
                name.escape_debug()
            );
            node.file.report(node.start, text);
        }
    }
    variables(node)
}

fn addresses(node: Node<'_>) -> Option<Vec<IpAddr>> {
    const EXPECTED: &str = "an array of IP addresses such as [\"192.0.2.53\"]";
    let address = |node: Node<'_>| {
        let text = node.str(EXPECTED)?;
        text.parse().ok().or_else(|| node.wrong(EXPECTED))
    };
    node.array(EXPECTED)?.into_iter().map(address).collect()
}
