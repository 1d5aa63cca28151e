//! The app's tests, in the new image or in another stage of its Dockerfile, with what they need beside them.

use rusqlite::Connection;

use super::command::{self, Run};
use super::needs::{self, Needed};
use crate::config::{Command, Test};
use crate::deploy::environment::Purpose;
use crate::deploy::line::{Done, Line, Stop};
use crate::deploy::steps::build;
use crate::deploy::{Agent, junit, settings};
use crate::engine::{Ended, EngineError};
use crate::ids::DeploymentId;
use crate::source::Commit;
use crate::state::Step;
use crate::store::deployments::{self, Deployment};
use crate::store::jobs::{self, Job, JobKind};
use crate::store::releases::Release;
use crate::store::results::{self, Results};
use crate::store::services::Service;

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
    let job = command::job(line, release, JobKind::Test);
    let job = test.command.is_some().then_some(job);
    let needed = needs::planned(line, release);
    let rows = needed.iter().map(|needed| &needed.job).chain(&job);
    let rows: Vec<Job> = rows.cloned().collect();
    let intent = move |db: &Connection| rows.iter().try_for_each(|row| jobs::insert(db, row));
    let effect = |()| tested(line, commit, deployment, release, test, job, needed);
    line.step_after(Step::Test, intent, effect).await
}

async fn tested(
    line: &Line<'_>,
    commit: &Commit,
    deployment: &Deployment,
    release: &Release,
    test: &Test,
    job: Option<Job>,
    needed: Vec<Needed<'_>>,
) -> Result<Done<()>, Stop> {
    let mut service = command::main(release)?.clone();
    settle(&mut service, test, !needed.is_empty());
    let image = match &test.target {
        Some(target) => Some(build::stage(line, commit, deployment, target).await?),
        None => None,
    };
    if let Some(image) = &image {
        service.image_id.clone_from(image);
    }
    let done = match (&test.command, job) {
        (Some(command), Some(job)) => {
            let beside = needs::start(line, &service, &needed, deployment.pull).await?;
            let run = Run {
                release,
                service: &service,
                command,
                deadline: test.timeout,
                purpose: Purpose::Test,
                apart: !needed.is_empty(),
                collect: test.junit.as_deref(),
            };
            let ended = command::ended(line, &run, &job).await?;
            let mut detail = judged(line, test, command, ended, &job, &needed).await?;
            if !beside.is_empty() {
                detail = format!("{detail}; beside it {}", beside.join(", "));
            }
            let names: Vec<String> = needed.iter().map(|it| it.job.name.clone()).collect();
            let end = |name: &String, db: &Connection| jobs::ended(db, name, None);
            Done::new((), detail).recording(move |db| names.iter().try_for_each(|it| end(it, db)))
        }
        _ => {
            let target = test.target.as_deref().unwrap_or_default();
            Done::new((), format!("the stage `{target}` is built"))
        }
    };
    let engine = &line.agent.engine;
    for needed in &needed {
        engine.remove(&needed.job.ours()).await?;
    }
    if !needed.is_empty() {
        needs::remove_network(line.agent, &line.app.name).await?;
    }
    if let Some(image) = &image {
        let name = build::name_of_stage(&line.app.name, &line.id);
        engine.untag_image(image, &name).await?;
    }
    Ok(done)
}

/// Gives a service the settings of the test.
fn settle(service: &mut Service, test: &Test, apart: bool) {
    let settings = &mut service.settings;
    settings.memory = test.memory.or(settings.memory);
    settings.cpus = test.cpus.or(settings.cpus);
    let own = test.env.iter();
    settings
        .env
        .extend(own.map(|(name, it)| (name.clone(), settings::value(it))));
    if apart {
        // What it needs is found by name on a network of its own.
        settings.container.networks.clear();
        settings.container.host_network = false;
    }
}

/// Records how the test ended; what is shown with the step, or why it failed.
async fn judged(
    line: &Line<'_>,
    test: &Test,
    command: &Command,
    ended: Ended,
    job: &Job,
    needed: &[Needed<'_>],
) -> Result<String, Stop> {
    let results = match &test.junit {
        Some(path) => read(line, path, ended.collected).await,
        None => None,
    };
    let (code, name, id) = (ended.exit.code, job.name.clone(), line.id.clone());
    let told = results.clone();
    let write = line.agent.store.write(move |db| {
        if let Some(results) = &told {
            results::record(db, &id, results)?;
        }
        jobs::ended(db, &name, Some(code))
    });
    write.await?;
    let said = results.as_ref().map(|it| format!(": {it}"));
    let said = said.unwrap_or_default();
    if code == 0 {
        return Ok(format!("`{command}` succeeded{said}"));
    }
    needs::say_tails(line, needed).await;
    let what = format!("`{command}` exited with code {code}{said}");
    Err(Stop::failed("test_failed", what).with_output(ended.exit.tail))
}

/// What the files say of the tests. That there is nothing to read decides nothing, but is said.
async fn read(
    line: &Line<'_>,
    path: &str,
    collected: Result<Vec<Vec<u8>>, String>,
) -> Option<Results> {
    let parsed = match collected {
        Ok(files) => tokio::task::spawn_blocking(move || junit::parse(&files))
            .await
            .unwrap_or_else(|error| Err(error.to_string())),
        Err(why) => Err(why),
    };
    match parsed {
        Ok(results) => {
            let failures = line.log.masked(results.failures);
            Some(Results {
                failures,
                ..results
            })
        }
        Err(why) => {
            line.log
                .line(&format!("[test] warning: no results from `{path}`: {why}"));
            None
        }
    }
}

/// Removes what is left of the test: its containers, their network, and the image that was made for it.
pub async fn undo(agent: &Agent, id: &DeploymentId) -> Result<(), EngineError> {
    command::undo(agent, id, JobKind::Test).await?;
    let of = id.clone();
    let found = agent
        .store
        .read(move |db| deployments::get(db, &of))
        .await?;
    let Some(deployment) = found else {
        return Ok(());
    };
    needs::remove_network(agent, &deployment.app).await?;
    let name = build::name_of_stage(&deployment.app, id);
    match agent.engine.image_id(&name).await? {
        Some(image) => agent.engine.untag_image(&image, &name).await,
        None => Ok(()),
    }
}
