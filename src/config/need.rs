//! `[apps.NAME.test.needs.NAME]`: what runs beside the test, such as a database, and is gone after it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::command::{Command, command};
use super::file::{Node, Section};
use super::run::environment;
use super::values::{cpus, memory, positive};
use super::{Image, Value};
use crate::ids::ServiceName;

/// A container that the test reaches by its name.
#[derive(Debug, Clone)]
pub struct Need {
    pub image: Image,
    /// In place of the image's own.
    pub command: Option<Command>,
    pub env: BTreeMap<String, Value>,
    /// The test starts once it accepts connections there. Absent: once it is healthy by the image's
    /// `HEALTHCHECK`; without one, once it accepts connections at the first port that the image exposes.
    pub port: Option<u16>,
    pub memory: u64,
    pub cpus: Option<f64>,
    /// If it is not ready by then, the test fails.
    pub deadline: Duration,
}

const MOST: usize = 8;
/// Enough for a database with a test's data.
const MEMORY: u64 = 1 << 30;
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) fn needs(node: Node<'_>) -> Option<BTreeMap<ServiceName, Need>> {
    const EXPECTED: &str =
        "a section for each, such as `[apps.NAME.test.needs.db]` with `image = \"postgres:17\"`";
    let entries = node.entries(EXPECTED)?;
    if entries.len() > MOST {
        node.report::<()>(format!("`{}` has more than {MOST} entries", node.path));
    }
    let mut all = BTreeMap::new();
    for (name, node) in entries {
        let parsed = name.parse::<ServiceName>();
        if let Err(error) = &parsed {
            node.file.report(node.start, error.to_string());
        }
        // Read even if the name is invalid, so that mistakes inside are reported too.
        let read = need(node.section());
        all.extend(parsed.ok().zip(read));
    }
    Some(all)
}

fn need(mut section: Section<'_>) -> Option<Need> {
    const EXPECTED: &str = "the name of an image such as \"postgres:17\", best with its digest";
    let image = section.required("image", EXPECTED, |node| {
        let parsed = node.str(EXPECTED)?.parse::<Image>();
        parsed.map_or_else(|_| node.wrong(EXPECTED), Some)
    });
    let command = section.read("command", command);
    let env = section.read("env", environment);
    let port = section.read("port", |node| node.integer(1, 65535));
    let limit = section.read("memory", memory);
    let cpus = section.read("cpus", cpus);
    let deadline = section.read("deadline", |node| positive(&node));
    section.done();
    Some(Need {
        image: image?,
        command,
        env: env.unwrap_or_default(),
        port: port.map(|port| port as u16),
        memory: limit.unwrap_or(MEMORY),
        cpus,
        deadline: deadline.unwrap_or(DEADLINE),
    })
}
