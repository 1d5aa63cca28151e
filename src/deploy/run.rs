//! The straight line.

use super::checkpoint::Checkpoint;
use super::line::{Line, Stop};
use super::{Agent, Result, bake, environment, masks, settings, steps, undo};
use crate::config::App;
use crate::state::{Event, State, Step};
use crate::store::deployments::{self, Deployment, Goal};
use crate::store::releases::Release;

/// Takes a queued deployment to a rest state, or back to the queue if Docker becomes unreachable.
pub async fn run(agent: &Agent, app: &App, deployment: &Deployment) -> Result<()> {
    let line = Line::enter(agent, app, deployment.id.clone())?;
    line.log.mask(masks::of_app(agent, &app.name).await);
    match to_switch(&line, deployment).await {
        Ok(release) => after_switch(&line, &release, State::Switching).await,
        Err(stop) => undo::undo(&line, line.told(stop)).await,
    }
}

/// Everything that can be undone. When this returns a release, it is the live one.
async fn to_switch(line: &Line<'_>, deployment: &Deployment) -> std::result::Result<Release, Stop> {
    steps::begin::attempt(line).await?;
    let release = match &deployment.goal {
        Goal::Release(id) => steps::start::kept(line, id).await?,
        Goal::Again => steps::start::again(line).await?,
        goal => {
            environment::check(line.agent, &line.app.name, &settings::of(line.app)).await?;
            let slot = steps::begin::slot(line).await?;
            let commit = line
                .step(
                    Step::Fetch,
                    steps::fetch::fetch(line, goal, deployment.git_ref.as_deref()),
                )
                .await?;
            let made = line
                .step(Step::Build, steps::build::build(line, &commit, deployment))
                .await?;
            drop(slot);
            steps::test::test(line, &commit, deployment, &made.release).await?;
            steps::command::release(line, &made).await?;
            made.release
        }
    };
    let instances = steps::start::start(line, &release).await?;
    line.step(Step::Probe, steps::probe::probe(line, &release, &instances))
        .await?;
    steps::switch::switch(line, &release).await?;
    Ok(release)
}

/// Everything that can only go forward; `reached` is the state from which a recovered deployment
/// continues.
pub async fn after_switch(line: &Line<'_>, release: &Release, reached: State) -> Result<()> {
    if reached == State::Switching {
        steps::switch::publish(line, release).await;
        steps::drain::begin(line, release).await?;
    }
    if reached <= State::Draining {
        steps::drain::drain(line).await?;
        if let Err(failure) = steps::hand_over::hand_over(line, release).await? {
            return super::rollback::automatic(line, release, &bake::Proof::of(failure)).await;
        }
    }
    if let bake::Verdict::Bad(proof) = bake::bake(line, release, reached).await? {
        return super::rollback::automatic(line, release, &proof).await;
    }
    steps::retire::retire(line).await?;

    let id = line.id.clone();
    line.record(move |db| deployments::end(db, &id, Event::Finish, None))
        .await?;
    Checkpoint::Ended.reach();
    tracing::info!(app = %line.app.name, deployment = %line.id, "live");
    Ok(())
}
