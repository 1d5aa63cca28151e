//! Background work of the agent: one file per task, each a loop that runs as long as the agent.

mod alarms;
mod ask;
mod cache;
mod certify;
mod poll;
mod prune;
mod reconcile;
mod reload;
mod retire;
mod schedule;
mod sweep;
mod traffic;

pub use alarms::alarms;
pub use ask::ask;
pub use cache::cache;
pub use certify::certify;
pub use poll::poll;
pub use prune::prune;
pub use reconcile::reconcile;
pub use reload::reload;
pub use retire::retire;
pub use schedule::schedule;
pub use sweep::sweep;
pub use traffic::traffic;
