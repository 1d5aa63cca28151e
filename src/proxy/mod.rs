//! The data plane: sockets, routes, pools, draining, counters. It knows nothing about git or
//! Docker: a [`table::Table`] comes in over the [`control`] socket, requests go out to targets.
//!
//! A request's way: [`listen`] accepts its connection, [`client_io`] reads it strictly, [`forward`]
//! claims a route from the live table ([`routes`]), takes a connection from the route's own pool
//! ([`pool`]) and hands the answer's [`body`] back. A switch replaces the table under the lock that
//! claims take; [`drain`] then waits for the claims made before it.

mod access_log;
mod answer;
mod answered;
mod app_body;
mod app_head;
mod app_io;
mod asked;
mod attempt;
mod body;
mod client_io;
pub mod control;
mod counters;
mod disk;
mod drain;
mod extended_connect;
mod forward;
mod framing;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod head;
mod headers;
mod hold;
mod http1;
mod http2;
mod listen;
mod live;
mod multiplexed;
mod outgoing;
mod place;
mod pool;
pub mod probe;
mod proxy_protocol;
mod replay;
mod request_id;
mod routes;
mod run;
mod sending;
mod served;
mod sockets;
pub mod table;
mod tls;
mod tunnel;
mod upstream;
mod via;
mod watch;
mod websocket;
mod worker;

pub use client_io::Limits;
pub use run::{ADDRESSES, Options, RunError, run};
