//! SQLite: one file a table; and the logs.

pub mod log;
