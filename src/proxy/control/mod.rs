//! The protocol between the agent and the proxy: JSON lines over `data_dir/proxy.sock`, one line for a
//! command and one for its reply, over any number of connections at the same time.

mod client;
pub mod disk;
pub mod handover;
mod level;
pub mod publish;
mod server;

use serde::{Deserialize, Serialize};

use crate::proxy::options::Settings;
use crate::proxy::route::table::Table;

pub use crate::proxy::route::drain::Receipt;
pub use crate::proxy::route::stats::{Failures, RouteStats, State};
pub use crate::proxy::route::tally::{PathTally, Tally};
pub use crate::proxy::spans::{Span, Taken};
pub use client::{Client, Error};
pub use level::{Level, Wanted};
pub use server::{Control, Leave, bind, is_answered, serve};

/// The name of the socket inside the data folder.
pub const SOCKET: &str = "proxy.sock";

/// The longest line, in bytes: enough for about 30,000 routes. A longer one is refused.
const MAX_LINE: u64 = 16 << 20;

#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Hello,
    Publish(Table),
    Drain {
        app: String,
        before_generation: u64,
        requests_ms: u64,
        websockets_ms: u64,
    },
    Stats,
    /// What became of an app's requests of late. Older proxies refuse it.
    Tallies {
        app: String,
    },
    /// Read the certificates and the answers to challenges again. Older proxies refuse it.
    Certificates,
    /// The names that clients asked for in vain since the last time, once there are some. Older proxies
    /// refuse it.
    UnknownNames,
    /// The requests that were traced since the last time. Older proxies refuse it.
    Spans,
    /// What the proxy logs, changed first if something is wanted. Older proxies refuse it.
    LogLevel {
        wanted: Option<Wanted>,
    },
    /// Return the whole table that requests are routed by now.
    Table,
    Stop,
    /// Hand the listening sockets over, and shut down once [`Command::Release`] comes on the same
    /// connection.
    Takeover,
    Release,
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
enum Answer<T> {
    Done(T),
    Refused(String),
}

/// The process that answers at the socket.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Hello {
    pub pid: u32,
    pub version: String,
    /// The generation of the table that requests are routed by now.
    pub generation: u64,
    /// The settings that it runs with; older proxies do not report them.
    #[serde(default)]
    pub settings: Option<Settings>,
    /// Whether an agent started it, and may replace it.
    #[serde(default)]
    pub by_agent: bool,
    /// Why it does not listen where apps reach others by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed_links: Vec<String>,
}
