//! Commands that run at certain times, in the live image with the app's settings. A run's row, with the
//! name of its container, is written before the container is made, and its end before the container is
//! removed: whatever ends the agent, the next one goes on with the same run.

mod due;
mod run;

use super::{Agent, Result};
use crate::store::jobs::{self, Job, JobKind};

pub use due::{Due, due, run_now};
pub use run::{run, stop};

/// The runs that have not ended.
pub async fn unfinished(agent: &Agent) -> Result<Vec<Job>> {
    agent.store.read(|db| jobs::open(db, JobKind::Cron)).await
}
