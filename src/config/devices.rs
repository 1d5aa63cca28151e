//! The keys of `[apps.NAME.run]` that give an app more of this machine: devices, graphics cards, networks of
//! others, and another place for its output.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::file::{Node, Section};
use super::values::variables;

/// The engine's driver for output that nothing else is said for.
pub const LOG_DRIVER: &str = "json-file";

/// A device file, and its path in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub host: String,
    pub target: String,
}

/// Which graphics cards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gpus {
    All,
    Count(u32),
    Named(Vec<String>),
}

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDriver {
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

pub(super) fn devices(node: Node<'_>) -> Option<Vec<Device>> {
    const EXPECTED: &str =
        "an array of devices such as [\"/dev/ttyUSB0\"] or [\"/dev/sdb:/dev/disk\"]";
    let device = |node: Node<'_>| {
        let text = node.str(EXPECTED)?;
        let (host, target) = text.split_once(':').unwrap_or((text, text));
        let good = |path: &str| {
            let plain = |c: char| c.is_ascii_graphic() && c != ':';
            path.starts_with("/dev/") && path.chars().all(plain) && !path.contains("..")
        };
        match good(host) && good(target) {
            true => Some(Device {
                host: host.to_owned(),
                target: target.to_owned(),
            }),
            false => node.wrong(EXPECTED),
        }
    };
    let all: Vec<_> = node.array(EXPECTED)?.into_iter().map(device).collect();
    all.into_iter().collect()
}

pub(super) fn gpus(node: Node<'_>) -> Option<Gpus> {
    const EXPECTED: &str = "\"all\", a number, or an array of the cards' names";
    match node.value.get_ref() {
        DeValue::String(text) if text.as_ref() == "all" => Some(Gpus::All),
        DeValue::Integer(_) => node.integer(1, 64).map(|count| Gpus::Count(count as u32)),
        DeValue::Array(_) => names(&node, EXPECTED).map(Gpus::Named),
        _ => node.wrong(EXPECTED),
    }
}

/// Networks that exist.
pub(super) fn networks(node: Node<'_>) -> Option<Vec<String>> {
    const EXPECTED: &str = "an array of Docker networks such as [\"backend\"]";
    let special = |name: &String| ["host", "none", "bridge", "default"].contains(&name.as_str());
    let names = names(&node, EXPECTED)?;
    match names.iter().any(special) {
        true => node.wrong_unshown(format!(
            "{EXPECTED}, each made with `docker network create`; `host`, `none` and `bridge` are none of these"
        )),
        false => Some(names),
    }
}

fn names(node: &Node<'_>, expected: &str) -> Option<Vec<String>> {
    let name = |node: Node<'_>| {
        let text = node.str(expected)?;
        let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let named = (1..=100).contains(&text.len()) && text.chars().all(good);
        match named && !text.starts_with(['.', '-']) {
            true => Some(text.to_owned()),
            false => node.wrong(expected),
        }
    };
    let all: Vec<_> = node.array(expected)?.into_iter().map(name).collect();
    all.into_iter().collect()
}

pub(super) fn log_driver(node: Node<'_>) -> Option<LogDriver> {
    const EXPECTED: &str = "the name of a log driver such as \"journald\"";
    let mut section: Section<'_> = node.section();
    let driver = section.required("driver", EXPECTED, |node| {
        let text = node.str(EXPECTED)?;
        let good = |c: char| c.is_ascii_alphanumeric() || "_.-/:".contains(c);
        match !text.is_empty() && text.chars().all(good) {
            true => Some(text.to_owned()),
            false => node.wrong(EXPECTED),
        }
    });
    let options = section.read("options", variables);
    section.done();
    Some(LogDriver {
        driver: driver?,
        options: options.unwrap_or_default(),
    })
}
