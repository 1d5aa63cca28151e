//! The steps of the line, in its order. Each file holds what its step does and what takes it back.

use super::Agent;
use crate::engine::EngineError;
use crate::ids::DeploymentId;
use crate::state::Step;
use crate::store::jobs::JobKind;

pub mod begin;
pub mod build;
pub mod command;
pub mod drain;
pub mod fetch;
pub mod probe;
pub mod retire;
pub mod start;
pub mod switch;

/// Takes back what a step of a deployment did, or began to do. Taking it back again is harmless.
pub async fn undo(agent: &Agent, id: &DeploymentId, step: Step) -> Result<(), EngineError> {
    match step {
        // The mirror and the image stay for the next attempt; `retire` removes old images.
        Step::Fetch | Step::Build => Ok(()),
        Step::Test => command::undo(agent, id, JobKind::Test).await,
        Step::Release => command::undo(agent, id, JobKind::Release).await,
        Step::Start => start::undo(agent, id).await,
        // It only looks.
        Step::Probe => Ok(()),
        // No deployment has one yet.
        Step::Canary => Ok(()),
        // From the switch on there is only forward.
        Step::Switch | Step::Drain | Step::Bake | Step::Retire => Ok(()),
    }
}
