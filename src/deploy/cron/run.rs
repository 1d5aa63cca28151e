//! A run from its container to its recorded end.

use std::time::Duration;

use rusqlite::Connection;

use crate::config::NotifyEvent;
use crate::deploy::environment::{self, EnvironmentError, Purpose};
use crate::deploy::{Agent, Result, masks};
use crate::engine::{EngineError, Exit, JobSpec, Status};
use crate::log_limit::limited;
use crate::store::events::{self, Said};
use crate::store::jobs::{self, Job};
use crate::store::log::Log;
use crate::store::now;
use crate::store::releases::{self, Release};

/// How many of a run's last lines people are told.
const TAIL: usize = 5;
/// The pause before an engine that answers nothing useful is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Runs a job to its end, from wherever an earlier agent left it.
pub async fn run(agent: &Agent, job: Job) {
    let (app, cron) = (&job.app, job.cron.as_ref());
    let name = cron.map_or(job.name.as_str(), |cron| cron.name.as_str());
    tracing::info!(%app, cron = name, container = job.name, "a scheduled run begins");
    loop {
        match attempt(agent, &job).await {
            Ok(End::Stopped(why)) => tracing::info!(%app, cron = name, "a scheduled run {why}"),
            Ok(End::By(Some(0))) => tracing::info!(%app, cron = name, "a scheduled run has ended"),
            Ok(End::By(Some(code))) => {
                tracing::warn!(%app, cron = name, code, "a scheduled run failed");
            }
            Ok(End::By(None)) => {
                tracing::warn!(%app, cron = name, "a scheduled run did not end by itself");
            }
            Err(error) => {
                tracing::warn!(%app, cron = name, %error, "a scheduled run waits");
                tokio::time::sleep(AGAIN).await;
                agent.wait_for_engine().await;
                continue;
            }
        }
        break;
    }
    if let Err(error) = agent.engine.remove(&job.ours()).await {
        // The sweep comes later.
        tracing::debug!(%app, %error, "the container of a run is left");
    }
    agent.scheduling.notify_one();
}

/// How a run ended.
enum End {
    /// With this exit code, if it has one.
    By(Option<i64>),
    /// It was meant to be stopped, for this reason.
    Stopped(String),
}

/// How it ended, once that is recorded; an error if the run is to be gone on with later.
async fn attempt(agent: &Agent, job: &Job) -> std::result::Result<End, EngineError> {
    let name = job.name.clone();
    let known = agent.store.read(move |db| jobs::get(db, &name)).await?;
    let (Some(known), Some(cron)) = (known.filter(|it| it.ended_at.is_none()), &job.cron) else {
        return Ok(End::By(None));
    };
    let log = Log::open(&agent.store.cron_log_path(&job.app, &cron.name));
    let log = log.map_err(|error| EngineError::Stopped(format!("its log: {error}")))?;
    log.mask(masks::of_app(agent, &job.app).await);
    if !known.made {
        match make(agent, &known, cron).await {
            Ok(()) => {}
            Err(error @ (EngineError::Unreachable { .. } | EngineError::Store(_))) => {
                return Err(error);
            }
            Err(error) => return end(agent, job, None, Some(error.to_string()), vec![]).await,
        }
        let name = job.name.clone();
        let made = move |db: &Connection| jobs::set_made(db, &name);
        agent.store.write(made).await?;
    }
    log.line(&format!("--- {} begins", job.name));
    let ours = job.ours();
    let engine = &agent.engine;
    let mut attend = std::pin::pin!(engine.attend(&ours, &log));
    let left = job.started_at + cron.timeout.as_millis() as i64 - now();
    let left = Duration::from_millis(left.max(0) as u64);
    let (ended, why) = tokio::select! {
        ended = &mut attend => (ended, None),
        () = tokio::time::sleep(left) => {
            let why = format!("stopped: it had not ended within {:?}", cron.timeout);
            engine.stop(&ours, grace(agent, job).await).await?;
            (attend.await, Some(why))
        }
    };
    match ended {
        Ok(Some(Exit { code, tail })) => {
            log.line(&format!("--- {} ended with code {code}", job.name));
            end(agent, job, Some(code), why, log.masked(tail)).await
        }
        Ok(None) => {
            let why = "its container was removed".to_owned();
            end(agent, job, None, Some(why), vec![]).await
        }
        // As a program that is not in the image.
        Err(EngineError::Refused { what, cause }) if engine.ping().await.is_ok() => {
            let why = EngineError::Refused { what, cause }.to_string();
            end(agent, job, None, Some(why), vec![]).await
        }
        Err(error) => Err(error),
    }
}

async fn make(agent: &Agent, job: &Job, cron: &jobs::Cron) -> std::result::Result<(), EngineError> {
    let of = job.release.clone();
    let release = agent.store.read(move |db| releases::get(db, &of)).await?;
    let gone = || EngineError::Stopped("its release is not known any more".to_owned());
    let release = release.ok_or_else(gone)?;
    let service = release.main().ok_or_else(gone)?;
    let environment = environment::of(agent, &release, service, &job.name, Purpose::App).await;
    let environment = environment.map_err(|error| match error {
        EnvironmentError::Engine(error) => error,
        EnvironmentError::Store(error) => error.into(),
        other => EngineError::Stopped(other.to_string()),
    })?;
    let spec = JobSpec {
        job,
        service,
        environment: &environment,
        command: &cron.command,
        deadline: cron.timeout,
        terminal: None,
        apart: false,
        collect: None,
    };
    agent.engine.make_job(&spec).await
}

async fn end(
    agent: &Agent,
    job: &Job,
    code: Option<i64>,
    why: Option<String>,
    tail: Vec<String>,
) -> std::result::Result<End, EngineError> {
    let job = job.clone();
    let write = agent.store.write(move |db| {
        let known = jobs::get(db, &job.name)?.and_then(|job| job.outcome);
        tell(db, &job, code, why.as_deref(), &tail)?;
        jobs::ended_with(db, &job, code, why.as_deref(), &tail)?;
        Ok(known)
    });
    let stopped = write.await?;
    agent.hub.changed();
    Ok(stopped.map_or(End::By(code), End::Stopped))
}

/// Tells people of a run that failed, but not of one that was meant to be stopped.
fn tell(
    db: &Connection,
    job: &Job,
    exit_code: Option<i64>,
    why: Option<&str>,
    log_tail: &[String],
) -> Result<()> {
    let open = jobs::get(db, &job.name)?.filter(|known| known.ended_at.is_none());
    let (Some(open), Some(cron)) = (open, &job.cron) else {
        return Ok(());
    };
    let why = match (why, exit_code) {
        _ if open.outcome.is_some() => return Ok(()),
        (Some(why), _) => why.to_owned(),
        (None, Some(0)) => return Ok(()),
        (None, Some(code)) => format!("it exited with code {code}"),
        (None, None) => return Ok(()),
    };
    let tail = log_tail.iter().skip(log_tail.len().saturating_sub(TAIL));
    let text: Vec<_> = std::iter::once(&why).chain(tail).cloned().collect();
    let what = NotifyEvent::CronFailed;
    let said = Said {
        about: what,
        app: Some(job.app.clone()),
        title: format!("{}: the scheduled command {} failed", job.app, cron.name),
        text: text.join("\n"),
    };
    events::said(db, what, said)
}

/// The time between SIGTERM and SIGKILL.
async fn grace(agent: &Agent, job: &Job) -> Duration {
    let of = job.release.clone();
    let release = agent.store.read(move |db| releases::get(db, &of)).await;
    let release = release.ok().flatten();
    let service = release.as_ref().and_then(Release::main);
    service.map_or(Duration::from_secs(10), |it| it.settings.stop_grace)
}

/// Stops a run for the next one; what runs it records the end. One that has ended by itself before that, as
/// it may have while no agent ran, is not called stopped.
pub async fn stop(agent: &Agent, job: &Job) {
    if let Err(error) = try_stop(agent, job).await {
        limited!(
            warn,
            "a run to stop",
            app = %job.app,
            container = job.name,
            %error,
            "cannot stop a scheduled run yet"
        );
    }
}

async fn try_stop(agent: &Agent, job: &Job) -> std::result::Result<(), EngineError> {
    let ours = job.ours();
    if !matches!(agent.engine.status(&ours).await?, Status::Running) {
        return Ok(());
    }
    let name = job.name.clone();
    let why = "stopped: the next run was due";
    let record = move |db: &Connection| jobs::set_outcome(db, &name, why);
    agent.store.write(record).await?;
    agent.engine.stop(&ours, grace(agent, job).await).await
}
