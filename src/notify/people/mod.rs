//! Telling people what happens to apps: `[notify.NAME]` of deploy.toml.

mod message;
mod send;
mod tell;

pub use tell::{Told, start, test};
