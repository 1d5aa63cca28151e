//! Commands that run at certain times, in the live image with the app's settings. A run's row, with the
//! name of its container, is written before the container is made, and its end before the container is
//! removed: whatever ends the agent, the next one goes on with the same run.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::environment::{self, EnvironmentError, Purpose};
use super::{Agent, Result, masks, rollback};
use crate::config::{self, App, NotifyEvent, Overlap};
use crate::engine::{EngineError, Exit, JobSpec};
use crate::ids::ServiceName;
use crate::principal::Requester;
use crate::store::events::{self, Said};
use crate::store::jobs::{self, Job, JobKind};
use crate::store::log::Log;
use crate::store::ours::mark;
use crate::store::releases::{self, Release};
use crate::store::{StoreError, actions, apps, crons, now};

/// A clock that was this far ahead was wrong.
const AHEAD: i64 = 24 * 3600 * 1000;
/// How many runs are looked at for one of the same time.
const RECENT: usize = 50;
/// How many of a run's last lines people are told.
const TAIL: usize = 5;
/// The pause before an engine that answers nothing useful is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// What the time has come for.
#[derive(Default)]
pub struct Due {
    /// Runs to stop, since the next one is due.
    pub stop: Vec<Job>,
    /// When the next one is due, in milliseconds since 1970.
    pub next: Option<i64>,
}

/// Records the runs whose time has come; they are then [`unfinished`]. `started` is when this agent began to look: what was due
/// before that was missed.
pub async fn due(agent: &Agent, started: i64) -> Result<Due> {
    let in_force = agent.in_force();
    let apps = in_force.config.apps.values();
    let apps: Vec<_> = apps.filter(|app| !app.cron.is_empty()).cloned().collect();
    if apps.is_empty() {
        return Ok(Due::default());
    }
    let write = agent.store.write(move |db| {
        let mut due = Due::default();
        for app in &apps {
            let live = match apps::stopped(db, &app.name)? {
                Some(_) => None,
                None => rollback::live(db, &app.name)?,
            };
            for (name, cron) in &app.cron {
                let cron = Scheduled { app, name, cron };
                cron.look(db, live.as_ref(), started, &mut due)?;
            }
        }
        Ok(due)
    });
    write.await
}

/// One schedule of an app.
struct Scheduled<'a> {
    app: &'a App,
    name: &'a ServiceName,
    cron: &'a config::Cron,
}

impl Scheduled<'_> {
    fn look(
        &self,
        db: &Connection,
        live: Option<&Release>,
        started: i64,
        due: &mut Due,
    ) -> Result<()> {
        let (app, schedule, now) = (&self.app.name, &self.cron.schedule, now());
        let key = format!("{} {}", schedule.text, schedule.timezone);
        let seen = match crons::seen(db, app, self.name)? {
            Some((seen, by)) if by == key && live.is_some() && seen < now + AHEAD => seen,
            // What was due before there was such a schedule, or anything live, was not missed.
            _ => {
                crons::set_seen(db, app, self.name, now, &key)?;
                now
            }
        };
        let (Some(live), Some(next)) = (live, schedule.next(seen)) else {
            return Ok(());
        };
        if next > now {
            due.next = Some(due.next.map_or(next, |soonest| soonest.min(next)));
            return Ok(());
        }
        // Of several that were missed, the last.
        let at = schedule.last(now).unwrap_or(next).max(next);
        let runs = jobs::of_cron(db, app, self.name, &jobs::Part::default(), RECENT)?;
        let mut known = runs.iter().filter_map(|job| job.cron.as_ref());
        // The clock was set back.
        if known.any(|cron| cron.due_at == Some(at)) {
            return crons::set_seen(db, app, self.name, at, &key);
        }
        let open = open(db, self)?;
        if let Some(open) = open {
            match self.cron.overlap {
                Overlap::Skip => {
                    crons::set_seen(db, app, self.name, at, &key)?;
                    let why = "skipped: the run before was still going on";
                    self.skip(db, live, at, why)?;
                }
                // It is still due when the other has ended.
                Overlap::Queue => {}
                Overlap::Kill => {
                    jobs::set_outcome(db, &open.name, "stopped: the next run was due")?;
                    due.stop.push(open);
                }
            }
            return Ok(());
        }
        crons::set_seen(db, app, self.name, at, &key)?;
        if at < started && !self.cron.missed {
            return self.skip(db, live, at, "skipped: no agent ran when it was due");
        }
        let job = self.job(live, Some(at), None);
        jobs::insert(db, &job)
    }

    fn job(&self, live: &Release, due_at: Option<i64>, by: Option<Requester>) -> Job {
        let (app, name) = (&self.app.name, self.name);
        let tail = &mark()[..8];
        let container = format!("cutover-{app}-cron-{name}-{:x}-{tail}", now());
        Job {
            cron: Some(jobs::Cron {
                name: name.clone(),
                due_at,
                command: self.cron.command.clone(),
                timeout: self.cron.timeout,
                requested_by: by,
            }),
            ..Job::new(container, app.clone(), live.id.clone(), JobKind::Cron, None)
        }
    }

    fn skip(&self, db: &Connection, live: &Release, at: i64, why: &str) -> Result<()> {
        let job = self.job(live, Some(at), None);
        jobs::insert(db, &job)?;
        tracing::warn!(app = %self.app.name, cron = %self.name, "{why}");
        jobs::ended_with(db, &job, None, Some(why), &[])
    }
}

/// The run of a schedule that has not ended.
fn open(db: &Connection, scheduled: &Scheduled<'_>) -> Result<Option<Job>> {
    let all = jobs::open(db, JobKind::Cron)?.into_iter();
    let of = |job: &Job| {
        let name = job.cron.as_ref().map(|cron| &cron.name);
        job.app == scheduled.app.name && name == Some(scheduled.name)
    };
    let mut all = all.filter(of);
    Ok(all.next())
}

/// Records a run that a person asks for; the schedule's job begins it.
pub async fn run_now(
    agent: &Agent,
    app: Arc<App>,
    name: ServiceName,
    by: Requester,
) -> Result<Job> {
    let write = agent.store.write(move |db| {
        let Some(cron) = app.cron.get(&name) else {
            return Err(StoreError::Refused(format!(
                "`{}` has no `[apps.{0}.cron.{name}]` in deploy.toml",
                app.name
            )));
        };
        let (app, name) = (&*app, &name);
        if apps::stopped(db, &app.name)?.is_some() {
            let why = format!("`{0}` is stopped: `cutover start {0}`", app.name);
            return Err(StoreError::Refused(why));
        }
        let scheduled = Scheduled { app, name, cron };
        let Some(live) = rollback::live(db, &app.name)? else {
            let why = format!("nothing of `{}` is live that could run it", app.name);
            return Err(StoreError::Refused(why));
        };
        if let Some(open) = open(db, &scheduled)? {
            let why = format!(
                "`{name}` is running already, in the container `{}`",
                open.name
            );
            return Err(StoreError::Refused(why));
        }
        let detail = serde_json::json!({ "cron": name });
        actions::insert(db, actions::Kind::Cron, Some(&app.name), &detail, &by)?;
        let job = scheduled.job(&live, None, Some(by));
        jobs::insert(db, &job)?;
        Ok(job)
    });
    let job = write.await?;
    agent.scheduling.notify_one();
    Ok(job)
}

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

/// Stops a run; what runs it records the end.
pub async fn stop(agent: &Agent, job: &Job) {
    let grace = grace(agent, job).await;
    if let Err(error) = agent.engine.stop(&job.ours(), grace).await {
        tracing::warn!(app = %job.app, container = job.name, %error, "cannot stop a scheduled run yet");
    }
}

/// The runs that have not ended.
pub async fn unfinished(agent: &Agent) -> Result<Vec<Job>> {
    agent.store.read(|db| jobs::open(db, JobKind::Cron)).await
}
