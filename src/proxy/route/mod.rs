//! Which host and path lead to which targets, which requests hold a share, and what each share has
//! done.

pub mod claim;
pub mod counters;
pub mod drain;
pub mod front;
pub mod hold;
pub mod live;
pub mod pattern;
pub mod rate;
pub mod routes;
pub mod share;
pub mod stats;
pub mod table;
pub mod tally;
pub mod visit;
