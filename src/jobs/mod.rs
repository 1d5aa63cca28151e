//! Background work of the agent: one file per job, each a loop that never ends by itself.

mod prune;
mod reconcile;
mod reload;
mod sweep;

pub use prune::prune;
pub use reconcile::reconcile;
pub use reload::reload;
pub use sweep::sweep;
