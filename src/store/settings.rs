//! The settings that a service of a release runs with, stored as JSON with a version number. Rows are
//! never rewritten: every version ever written stays readable, and only the newest is written.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Check, Command};
use crate::ids::AppName;

/// The version that is written. Raise it with any change to [`Settings`] that older rows do not fit,
/// and keep a reader of the older form in this file.
const VERSION: u64 = 4;
/// Had no `links`, `secret_files` and, of `container`, `devices` and what follows them: its rows fit [`Settings`] too.
const THIRD: u64 = 3;
/// Had no `command`, `overlap`, `kept` and `health.check`: its rows fit [`Settings`] too.
const SECOND: u64 = 2;
/// Had no more than `env` without references, the limits, `stop_grace` and `health`: its rows fit
/// [`Settings`], and what they do not mention is off, as it was.
const FIRST: u64 = 1;

/// Stored with the release, so that a rollback brings the settings back too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What runs in place of the image's own command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// Whether new instances start while those of another release still run.
    #[serde(default = "yes")]
    pub overlap: bool,
    pub env: BTreeMap<String, Value>,
    /// Variables that Cutover keeps, in place of those of the same name in `env`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<String, String>,
    /// A file of `NAME=VALUE` lines, read whenever a container is made.
    #[serde(default)]
    pub env_file: Option<PathBuf>,
    /// The secrets that must be there, each with where it is read from, or `None` if Cutover keeps it.
    #[serde(default)]
    pub secrets: BTreeMap<String, Option<Place>>,
    /// Those of them that are files below `/run/secrets`, and no variables.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secret_files: BTreeSet<String>,
    /// The memory limit in bytes.
    pub memory: Option<u64>,
    /// The limit in processors, which may be a fraction.
    pub cpus: Option<f64>,
    /// The time between SIGTERM and SIGKILL.
    #[serde(rename = "stop_grace_ms", with = "millis")]
    pub stop_grace: Duration,
    /// Names without `CAP_`.
    #[serde(default)]
    pub capabilities: Vec<String>,
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// The apps that it reaches by their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<AppName>,
    #[serde(default)]
    pub container: Container,
    pub health: Health,
}

/// The value of an environment variable. One that is read from elsewhere is never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    Text(String),
    From(Place),
}

/// Where a value is read from whenever a container is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A variable of the agent's environment.
    Env(String),
    File(PathBuf),
}

/// Storage that outlives the containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub source: VolumeSource,
    /// The absolute path in the container.
    pub target: String,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeSource {
    /// A volume of the app, by the name that the app has for it.
    Named(String),
    /// A file or folder of this machine.
    Host(PathBuf),
}

/// What the engine is told about a container as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Paths that are kept in memory, each with its largest size in bytes.
    pub tmpfs: BTreeMap<String, Option<u64>>,
    pub user: Option<String>,
    pub read_only: bool,
    /// Whether an init process passes signals on and reaps orphans.
    pub init: bool,
    pub stop_signal: Option<String>,
    /// The soft and the hard limit by name.
    pub ulimits: BTreeMap<String, (i64, i64)>,
    /// The size of /dev/shm in bytes.
    pub shm_size: Option<u64>,
    pub extra_hosts: BTreeMap<String, String>,
    pub dns: Vec<IpAddr>,
    pub labels: BTreeMap<String, String>,
    /// Each with its path in the container.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Gpus>,
    /// Networks of others that it joins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// Whether it has this machine's network.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub host_network: bool,
    /// Whether it sees this machine's processes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub host_pid: bool,
    /// Where its output goes; `None`: the engine keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogDriver>,
}

impl Container {
    /// The key of what is as good as this machine, if it has that.
    pub fn machine(&self) -> Option<&'static str> {
        match self {
            Self {
                privileged: true, ..
            } => Some("privileged"),
            Self {
                host_network: true, ..
            } => Some("network"),
            Self { host_pid: true, .. } => Some("pid"),
            _ => None,
        }
    }
}

/// Which graphics cards a container gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gpus {
    All,
    Count(u32),
    Named(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogDriver {
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

/// When an instance is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub path: String,
    /// The name that probes ask for. Absent: one of the app's domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// More header fields of a probe.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(rename = "interval_ms", with = "millis")]
    pub interval: Duration,
    #[serde(rename = "timeout_ms", with = "millis")]
    pub timeout: Duration,
    /// How many successful probes in a row make an instance healthy.
    pub successes: u32,
    #[serde(rename = "deadline_ms", with = "millis")]
    pub deadline: Duration,
    #[serde(default)]
    pub check: Check,
}

fn yes() -> bool {
    true
}

#[derive(Serialize)]
struct Written<'a> {
    version: u64,
    #[serde(flatten)]
    settings: &'a Settings,
}

pub(super) fn to_json(settings: &Settings) -> serde_json::Result<String> {
    serde_json::to_string(&Written {
        version: VERSION,
        settings,
    })
}

/// Reads settings that any version wrote. The error is a message for people.
pub(super) fn from_json(text: &str) -> Result<Settings, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let version = value.get("version").map_or(Some(0), |it| it.as_u64());
    let read = match version {
        Some(0) => serde_json::from_value::<v0::Settings>(value).map(Settings::from),
        Some(FIRST | SECOND | THIRD | VERSION) => serde_json::from_value(value),
        _ => return Err("the settings of a release were written by a newer version".into()),
    };
    read.map_err(|error| format!("failed to read the settings of a release: {error}"))
}

/// Durations as whole milliseconds, the unit of every time in the database.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(time.as_millis().try_into().unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// Settings without a version number: the configuration's own structs, from when a release had one
/// image and one set of settings. A migration moved port, protocol and replicas, which were also
/// part of them, to columns.
mod v0 {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use serde::Deserialize;

    #[derive(Deserialize)]
    pub struct Settings {
        run: Run,
        health: Health,
    }

    #[derive(Deserialize)]
    struct Run {
        env: BTreeMap<String, String>,
        memory: Option<u64>,
        cpus: Option<f64>,
        stop_grace: Duration,
    }

    #[derive(Deserialize)]
    struct Health {
        path: String,
        interval: Duration,
        timeout: Duration,
        successes: u32,
        deadline: Duration,
    }

    impl From<Settings> for super::Settings {
        fn from(Settings { run, health }: Settings) -> Self {
            let text = |(name, value)| (name, super::Value::Text(value));
            Self {
                command: None,
                overlap: true,
                env: run.env.into_iter().map(text).collect(),
                kept: BTreeMap::new(),
                env_file: None,
                secrets: BTreeMap::new(),
                secret_files: Default::default(),
                memory: run.memory,
                cpus: run.cpus,
                stop_grace: run.stop_grace,
                capabilities: Vec::new(),
                volumes: Vec::new(),
                links: Vec::new(),
                container: super::Container::default(),
                health: super::Health {
                    path: health.path,
                    host: None,
                    headers: BTreeMap::new(),
                    interval: health.interval,
                    timeout: health.timeout,
                    successes: health.successes,
                    deadline: health.deadline,
                    check: Default::default(),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_says_its_version() {
        let settings = Settings {
            command: Some(Command::Program(vec!["bin/jobs".into(), "--all".into()])),
            overlap: false,
            env: [
                ("A".to_owned(), Value::Text("1".into())),
                ("B".to_owned(), Value::From(Place::Env("HELLO_B".into()))),
                ("C".to_owned(), Value::From(Place::File("/c".into()))),
            ]
            .into(),
            kept: [("A".to_owned(), "2".to_owned())].into(),
            env_file: Some("/hello.env".into()),
            secrets: [
                ("D".to_owned(), None),
                ("E".to_owned(), Some(Place::Env("HELLO_E".into()))),
            ]
            .into(),
            secret_files: ["E".to_owned()].into(),
            memory: Some(64 << 20),
            cpus: Some(0.5),
            stop_grace: Duration::from_millis(1500),
            capabilities: vec!["NET_RAW".into()],
            volumes: vec![
                Volume {
                    source: VolumeSource::Named("data".into()),
                    target: "/data".into(),
                    read_only: false,
                },
                Volume {
                    source: VolumeSource::Host("/srv/x".into()),
                    target: "/x".into(),
                    read_only: true,
                },
            ],
            links: vec!["api".parse().unwrap()],
            container: Container {
                init: true,
                ulimits: [("nofile".to_owned(), (1024, 4096))].into(),
                dns: vec![IpAddr::from([192, 0, 2, 53])],
                devices: [("/dev/a".to_owned(), "/dev/b".to_owned())].into(),
                gpus: Some(Gpus::Named(vec!["0".into()])),
                networks: vec!["backend".into()],
                privileged: true,
                host_pid: true,
                log: Some(LogDriver {
                    driver: "journald".into(),
                    options: [("tag".to_owned(), "hello".to_owned())].into(),
                }),
                ..Default::default()
            },
            health: Health {
                path: "/up".into(),
                host: Some("a.test".into()),
                headers: [("accept".to_owned(), "text/html".to_owned())].into(),
                interval: Duration::from_millis(500),
                timeout: Duration::from_secs(5),
                successes: 2,
                deadline: Duration::from_secs(60),
                check: Check::Command(Command::Shell("bin/check".into())),
            },
        };
        let text = to_json(&settings).unwrap();
        assert_eq!(from_json(&text), Ok(settings));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["version"], VERSION);
        assert_eq!(value["stop_grace_ms"], 1500);
    }

    #[test]
    fn what_the_first_version_wrote_runs_as_it_did() {
        let text = r#"{"version":1,"env":{"A":"1"},"memory":null,"cpus":0.5,"stop_grace_ms":1500,
            "health":{"path":"/","interval_ms":1,"timeout_ms":1,"successes":1,"deadline_ms":1}}"#;
        let read = from_json(text).unwrap();
        assert_eq!(read.env["A"], Value::Text("1".into()));
        assert_eq!(read.container, Container::default());
        assert!(!read.container.init && read.volumes.is_empty());
        assert!(read.command.is_none() && read.overlap);
        assert_eq!(read.health.check, Check::Route);
    }

    #[test]
    fn a_newer_version_is_refused_not_guessed() {
        for text in [r#"{"version":99}"#, r#"{"version":"1"}"#, "{}", "["] {
            assert!(from_json(text).is_err(), "{text}");
        }
    }
}
