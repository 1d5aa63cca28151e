//! Telling the forge: commit statuses, and the forge's own deployments.
//!
//! What is true is taken down by [`crate::store::reports`] in the transaction in which a deployment's
//! state changes; a row holds only the latest truth. One task, [`start`], sends what waits: of each
//! app one request at a time, so that nothing arrives out of order, and with a deadline. A forge that
//! is slow, down or full delays nothing else: the row stays and is sent again, ever more slowly, for
//! three days. What a forge refuses for good is shown on the deployment.
//!
//! `forge` holds a pure file for each forge: a [`Fact`] in, requests out.

mod address;
mod answer;
mod app_token;
mod fact;
pub mod forge;
mod http;
mod kind;
mod link;
mod phase;
mod remote;
mod send;
mod sender;
mod session;
mod token;

pub use address::{Address, Asked, Missing};
pub use fact::Fact;
pub use forge::Forge;
pub use kind::Kind;
pub use phase::Phase;
pub use sender::start;
