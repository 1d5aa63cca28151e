//! What the outside is told of deployments: today the forges, by commit statuses and deployments of
//! their own.
//!
//! [`crate::store::statuses`] records what is true in the transaction in which a deployment's state
//! changes. One task, [`start`], sends what waits: of each app one request at a time, so that nothing
//! arrives out of order, and with a deadline. A forge that is slow, down or full delays nothing else:
//! the row stays and is sent again, at growing intervals, for three days. What a forge refuses for
//! good is shown on the deployment.

mod forge;
mod sender;

pub use sender::start;
