//! What the outside is told of deployments: today the forges, by commit statuses and deployments of
//! their own.
//!
//! [`crate::store::outbox`] holds what waits; each message is written in the transaction of what it
//! tells. One task, [`start`], sends what is due: of each key one message at a time, so that nothing
//! arrives out of order, and with a deadline. A receiver that is slow, down or full delays nothing
//! else: the message stays and is sent again, at growing intervals, for three days.

mod forge;
mod outbox;

pub use outbox::start;
