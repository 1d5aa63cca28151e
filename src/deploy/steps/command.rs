//! The app's own commands in the new image: its tests, and the release command.
//! Each runs as a job.

use std::time::Duration;

use rusqlite::Connection;

use crate::config::Command;
use crate::deploy::Agent;
use crate::deploy::environment::{self, Purpose};
use crate::deploy::line::{Done, Line, Stop};
use crate::deploy::steps::build::Made;
use crate::engine::{EngineError, JobSpec};
use crate::ids::DeploymentId;
use crate::state::Step;
use crate::store::jobs::{self, Job, JobKind};
use crate::store::releases::Release;

/// A migration may take long; one that takes longer than this is assumed to hang.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

pub async fn test(line: &Line<'_>, release: &Release) -> Result<(), Stop> {
    match &line.app.hooks.test {
        Some(command) => run(line, release, JobKind::Test, command).await,
        None => Ok(()),
    }
}

/// What deploy.toml names or, without that, the Procfile.
pub async fn release(line: &Line<'_>, made: &Made) -> Result<(), Stop> {
    match line.app.hooks.release.as_ref().or(made.command.as_ref()) {
        Some(command) => run(line, &made.release, JobKind::Release, command).await,
        None => Ok(()),
    }
}

async fn run(
    line: &Line<'_>,
    release: &Release,
    kind: JobKind,
    command: &Command,
) -> Result<(), Stop> {
    let step = match kind {
        JobKind::Test => Step::Test,
        _ => Step::Release,
    };
    let name = format!("cutover-{}-{}-{step}", line.app.name, line.id);
    let (app, of) = (line.app.name.clone(), release.id.clone());
    let job = Job::new(name, app, of, kind, Some(line.id.clone()));
    let row = job.clone();
    let intent = move |db: &Connection| jobs::insert(db, &row);
    let effect = |()| to_its_end(line, release, job, command);
    line.step_after(step, intent, effect).await
}

async fn to_its_end(
    line: &Line<'_>,
    release: &Release,
    job: Job,
    command: &Command,
) -> Result<Done<()>, Stop> {
    let Some(service) = release.main() else {
        let what = format!("the release `{}` has no service", release.id);
        return Err(Stop::failed("no_service", what));
    };
    let purpose = match job.kind {
        JobKind::Test => Purpose::Test,
        _ => Purpose::App,
    };
    let environment = environment::of(line.agent, release, service, &job.name, purpose).await?;
    let spec = JobSpec {
        job: &job,
        service,
        environment: &environment,
        command,
        deadline: DEADLINE,
        terminal: None,
    };
    let engine = &line.agent.engine;
    let exit = engine.run(&spec, &line.log, &line.cancel).await?;
    let (kind, name) = (job.kind, job.name);
    let code = exit.code;
    let ended = move |db: &Connection| jobs::ended(db, &name, Some(code));
    if code == 0 {
        return Ok(Done::new((), format!("`{command}` succeeded")).recording(ended));
    }
    let failure = match kind {
        JobKind::Test => "test_failed",
        _ => "release_command_failed",
    };
    line.agent.store.write(ended).await?;
    let what = format!("`{command}` exited with code {code}");
    Err(Stop::failed(failure, what).with_output(exit.tail))
}

/// Kills the deployment's job if it is still running, and removes it.
pub async fn undo(agent: &Agent, id: &DeploymentId, kind: JobKind) -> Result<(), EngineError> {
    let of = id.clone();
    let open = agent.store.read(move |db| jobs::open_of(db, &of, kind));
    for job in open.await? {
        agent.engine.remove(&job.ours()).await?;
        let ended = move |db: &Connection| jobs::ended(db, &job.name, None);
        agent.store.write(ended).await?;
    }
    Ok(())
}
