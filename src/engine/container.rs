//! What the engine says of a container.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The state of a container as the engine reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    Running,
    /// The exit code, and whether the container was killed for exceeding its memory limit.
    Exited(i64, bool),
    Missing,
}

/// Where a container's processes accept connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listening {
    /// `None`: that cannot be seen from here.
    pub sockets: Option<Vec<SocketAddr>>,
    /// The TCP ports that its image declares.
    pub exposed: Vec<u16>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    pub code: i64,
    /// Its last lines, oldest first.
    pub tail: Vec<String>,
}

/// How a job ended, and what it left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub exit: Exit,
    /// The content of each file that was asked for; an error says why there is none.
    pub collected: Result<Vec<Vec<u8>>, String>,
}

/// The state of a container that a test needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeedLook {
    pub status: Status,
    /// Its address on the test's network.
    pub address: Option<IpAddr>,
    /// Whether its image's health check has passed; `None` if there is none.
    pub healthy: Option<bool>,
    /// The first TCP port that its image declares.
    pub exposed: Option<u16>,
}

/// Everything that inspecting an instance reveals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    pub run: Run,
    /// The address that it has on the agent's network, while it runs.
    pub address: Option<IpAddr>,
    /// How often the engine has restarted it.
    pub restarts: i64,
    /// The exit code of its last run.
    pub exit_code: i64,
    pub out_of_memory: bool,
    /// Its anonymous volumes: the name and path of each.
    pub volumes: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Run {
    Running,
    Paused,
    /// It ended by itself, and the engine is about to restart it.
    Restarting,
    Exited,
    #[default]
    Missing,
}

/// A container that carries this agent's label. That does not make it ours: a container inherits the
/// labels of its image.
#[derive(Debug, Clone)]
pub struct Found {
    pub name: String,
    pub mark: Option<String>,
}

/// What a container uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// The time on processors since it was started.
    pub cpu: Duration,
    /// In bytes, without what the kernel only caches.
    pub memory: u64,
}
