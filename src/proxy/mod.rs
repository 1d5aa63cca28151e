//! The data plane: sockets, routes, pools, draining, counters. It knows nothing about git or
//! Docker: a [`table::Table`] comes in over the [`control`] socket, requests go out to targets.

pub mod control;
pub mod probe;
pub mod table;
