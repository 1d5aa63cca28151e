//! The steps of the line, in its order. Each file holds its step and the step's undo.

use super::Agent;
use crate::engine::EngineError;
use crate::ids::DeploymentId;
use crate::state::Step;
use crate::store::jobs::JobKind;

mod alone;
pub mod begin;
pub mod build;
pub mod command;
pub mod drain;
pub mod fetch;
pub mod hand_over;
pub mod image;
mod instance;
mod needs;
pub mod probe;
pub mod retire;
mod standing;
pub mod start;
pub mod switch;
pub mod test;
mod unhealthy;
mod vacate;

/// Undoes what a step of a deployment did or began to do. Repeating it is harmless.
pub async fn undo(agent: &Agent, id: &DeploymentId, step: Step) -> Result<(), EngineError> {
    match step {
        // The mirror and the image stay for the next attempt; `retire` removes old images.
        Step::Fetch | Step::Build => Ok(()),
        Step::Test => test::undo(agent, id).await,
        Step::Release => command::undo(agent, id, JobKind::Release).await,
        Step::Start => start::undo(agent, id).await,
        // A probe changes nothing.
        Step::Probe => Ok(()),
        // No strategy starts a canary yet.
        Step::Canary => Ok(()),
        // From the switch on, the only way is forward.
        Step::Switch | Step::Drain | Step::Bake | Step::Retire => Ok(()),
    }
}
