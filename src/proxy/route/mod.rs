//! Which host and path lead where, who holds it, and what it has done.

pub mod claim;
pub mod counters;
pub mod drain;
pub mod hold;
pub mod live;
pub mod routes;
pub mod share;
pub mod stats;
pub mod table;
