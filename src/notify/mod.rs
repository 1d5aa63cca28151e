//! Notifications about deployments: to the forges, as commit statuses and as the forge's own
//! deployments, and to `people`.
//!
//! [`crate::store::outbox`] holds what is waiting; each message is written in the transaction of the
//! change that it reports. One task, [`start`], sends what is due: one message per key at a time, so
//! that nothing arrives out of order, and with a deadline. A slow or failing receiver delays nothing
//! else: the message stays and is retried, at growing intervals, for three days.

mod forge;
mod otlp;
mod outbox;
mod people;

pub use otlp::start as trace;
pub use outbox::start;
pub use people::{Told, start as tell_people, test};
