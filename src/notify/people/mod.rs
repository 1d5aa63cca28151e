//! Telling people what happens to apps and to the server: `[notify.NAME]` of deploy.toml.

mod choice;
mod email;
mod kind;
mod message;
mod send;
mod tell;
mod test;

pub(super) use send::{Problem, exchange};
pub use tell::start;
pub use test::{Told, test};
