//! The data plane: sockets, routes, pools, draining, counters. It does not depend on git or Docker:
//! the agent publishes a [`table::Table`] over the [`control`] socket, and requests go to its targets.
//!
//! Its rooms, each importing only from those before it:
//!
//! - `wire`: pure bytes and heads, no I/O.
//! - `upstream`: the app's side, connections to targets and their pools.
//! - `downstream`: the client's side, accepting connections and reading requests strictly.
//! - `route`: the live table, who holds a route, counters and draining.
//! - `exchange`: one request, from its head to the last byte of the response.
//! - `control`: the agent's commands, the table on disk, handing over to a successor.
//!
//! A switch replaces the table under the lock that claims take; a drain then waits for the claims
//! made before it.

pub mod control;
mod downstream;
mod exchange;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod route;
mod upstream;
mod wire;

mod access_log;
mod links;
mod log_file;
mod options;
mod run;
mod sockets;
mod spans;
mod threads;
mod watch;
mod worker;

pub use downstream::certificates::{ACME, Folders, pem};
pub use downstream::limits::{Limits, network_of};
pub use log_file::OWN as LOG;
pub use options::{ADDRESSES, Options, Settings};
pub use route::front;
pub use route::table;
pub use run::{RunError, raise_file_limit, run};
pub use sockets::listen_hint;
pub use upstream::probe;
pub use wire::head::{MAX as HIGHEST_HEADER_LIMIT, USUAL as HEADER_LIMIT};
