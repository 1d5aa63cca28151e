//! The app's own commands in the new image, each run as a job; and the release command, which is one.

use std::time::Duration;

use rusqlite::Connection;

use crate::config::Command;
use crate::deploy::Agent;
use crate::deploy::environment::{self, Purpose};
use crate::deploy::line::{Done, Line, Stop};
use crate::deploy::steps::build::Made;
use crate::engine::{Ended, EngineError, JobSpec};
use crate::ids::DeploymentId;
use crate::state::Step;
use crate::store::jobs::{self, Job, JobKind};
use crate::store::releases::Release;
use crate::store::services::Service;

/// A migration may take long; one that takes longer than this is assumed to hang.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// What deploy.toml names or, without that, the Procfile.
pub async fn release(line: &Line<'_>, made: &Made) -> Result<(), Stop> {
    match line.app.hooks.release.as_ref().or(made.command.as_ref()) {
        Some(command) => run(line, &made.release, command).await,
        None => Ok(()),
    }
}

async fn run(line: &Line<'_>, release: &Release, command: &Command) -> Result<(), Stop> {
    let run = Run {
        release,
        service: main(release)?,
        command,
        deadline: DEADLINE,
        purpose: Purpose::App,
        apart: false,
        collect: None,
    };
    let job = job(line, release, JobKind::Release);
    let row = job.clone();
    let intent = move |db: &Connection| jobs::insert(db, &row);
    let effect = |()| to_its_end(line, run, job);
    line.step_after(Step::Release, intent, effect).await
}

async fn to_its_end(line: &Line<'_>, run: Run<'_>, job: Job) -> Result<Done<()>, Stop> {
    let Ended { exit, .. } = ended(line, &run, &job).await?;
    let (command, code) = (run.command, exit.code);
    let ended = move |db: &Connection| jobs::ended(db, &job.name, Some(code));
    if code == 0 {
        return Ok(Done::new((), format!("`{command}` succeeded")).recording(ended));
    }
    line.agent.store.write(ended).await?;
    let what = format!("`{command}` exited with code {code}");
    Err(Stop::failed("release_command_failed", what).with_output(exit.tail))
}

pub(super) fn job(line: &Line<'_>, release: &Release, kind: JobKind) -> Job {
    let step = match kind {
        JobKind::Test => Step::Test,
        _ => Step::Release,
    };
    let name = format!("cutover-{}-{}-{step}", line.app.name, line.id);
    let (app, of) = (line.app.name.clone(), release.id.clone());
    Job::new(name, app, of, kind, Some(line.id.clone()))
}

pub(super) fn main(release: &Release) -> Result<&Service, Stop> {
    release.main().ok_or_else(|| {
        let what = format!("the release `{}` has no service", release.id);
        Stop::failed("no_service", what)
    })
}

/// What is run, and with which settings.
pub(super) struct Run<'a> {
    pub release: &'a Release,
    pub service: &'a Service,
    pub command: &'a Command,
    pub deadline: Duration,
    pub purpose: Purpose,
    /// Whether it is on the network of the test alone.
    pub apart: bool,
    pub collect: Option<&'a str>,
}

/// Runs a command to its end, with its output in the log.
pub(super) async fn ended(line: &Line<'_>, run: &Run<'_>, job: &Job) -> Result<Ended, Stop> {
    let (release, service) = (run.release, run.service);
    let environment = environment::of(line.agent, release, service, &job.name, run.purpose).await?;
    let spec = JobSpec {
        job,
        service,
        environment: &environment,
        command: run.command,
        deadline: run.deadline,
        terminal: None,
        apart: run.apart,
        collect: run.collect,
    };
    let engine = &line.agent.engine;
    Ok(engine.run(&spec, &line.log, &line.cancel).await?)
}

/// Kills the deployment's jobs of this kind that are still running, and removes them.
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
