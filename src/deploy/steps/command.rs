//! The app's own commands in the new image: its tests, and the release command.
//! Each runs as a job.

use std::time::Duration;

use rusqlite::Connection;

use crate::config::{Command, Test};
use crate::deploy::environment::{self, Purpose};
use crate::deploy::line::{Done, Line, Stop};
use crate::deploy::steps::build::{self, Made};
use crate::deploy::{Agent, settings};
use crate::engine::{EngineError, JobSpec};
use crate::ids::DeploymentId;
use crate::source::Commit;
use crate::state::Step;
use crate::store::deployments::{self, Deployment};
use crate::store::jobs::{self, Job, JobKind};
use crate::store::releases::Release;
use crate::store::services::Service;

/// A migration may take long; one that takes longer than this is assumed to hang.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Nothing of the image has started yet, and nothing does if it fails.
pub async fn test(
    line: &Line<'_>,
    commit: &Commit,
    deployment: &Deployment,
    release: &Release,
) -> Result<(), Stop> {
    let Some(test) = &line.app.test else {
        return Ok(());
    };
    let job = test
        .command
        .as_ref()
        .map(|_| job(line, release, JobKind::Test));
    let row = job.clone();
    let intent = move |db: &Connection| row.iter().try_for_each(|row| jobs::insert(db, row));
    let effect = |()| tested(line, commit, deployment, release, test, job);
    line.step_after(Step::Test, intent, effect).await
}

async fn tested(
    line: &Line<'_>,
    commit: &Commit,
    deployment: &Deployment,
    release: &Release,
    test: &Test,
    job: Option<Job>,
) -> Result<Done<()>, Stop> {
    let mut service = main(release)?.clone();
    let settings = &mut service.settings;
    settings.memory = test.memory.or(settings.memory);
    settings.cpus = test.cpus.or(settings.cpus);
    let own = test.env.iter();
    settings
        .env
        .extend(own.map(|(name, it)| (name.clone(), settings::value(it))));
    let image = match &test.target {
        Some(target) => Some(build::stage(line, commit, deployment, target).await?),
        None => None,
    };
    if let Some(image) = &image {
        service.image_id.clone_from(image);
    }
    let done = match (&test.command, job) {
        (Some(command), Some(job)) => {
            let run = Run {
                release,
                service: &service,
                command,
                deadline: test.timeout,
            };
            to_its_end(line, run, job).await?
        }
        _ => {
            let target = test.target.as_deref().unwrap_or_default();
            Done::new((), format!("the stage `{target}` is built"))
        }
    };
    if let Some(image) = &image {
        let name = build::name_of_stage(&line.app.name, &line.id);
        line.agent.engine.untag_image(image, &name).await?;
    }
    Ok(done)
}

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
    };
    let job = job(line, release, JobKind::Release);
    let row = job.clone();
    let intent = move |db: &Connection| jobs::insert(db, &row);
    let effect = |()| to_its_end(line, run, job);
    line.step_after(Step::Release, intent, effect).await
}

fn job(line: &Line<'_>, release: &Release, kind: JobKind) -> Job {
    let step = match kind {
        JobKind::Test => Step::Test,
        _ => Step::Release,
    };
    let name = format!("cutover-{}-{}-{step}", line.app.name, line.id);
    let (app, of) = (line.app.name.clone(), release.id.clone());
    Job::new(name, app, of, kind, Some(line.id.clone()))
}

fn main(release: &Release) -> Result<&Service, Stop> {
    release.main().ok_or_else(|| {
        let what = format!("the release `{}` has no service", release.id);
        Stop::failed("no_service", what)
    })
}

/// What is run, and with which settings.
struct Run<'a> {
    release: &'a Release,
    service: &'a Service,
    command: &'a Command,
    deadline: Duration,
}

async fn to_its_end(line: &Line<'_>, run: Run<'_>, job: Job) -> Result<Done<()>, Stop> {
    let Run {
        release,
        service,
        command,
        deadline,
    } = run;
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
        deadline,
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

/// The same, and removes the image that was made for the test.
pub async fn undo_test(agent: &Agent, id: &DeploymentId) -> Result<(), EngineError> {
    undo(agent, id, JobKind::Test).await?;
    let of = id.clone();
    let found = agent
        .store
        .read(move |db| deployments::get(db, &of))
        .await?;
    let Some(deployment) = found else {
        return Ok(());
    };
    let name = build::name_of_stage(&deployment.app, id);
    match agent.engine.image_id(&name).await? {
        Some(image) => agent.engine.untag_image(&image, &name).await,
        None => Ok(()),
    }
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
