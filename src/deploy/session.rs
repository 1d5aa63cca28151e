//! Programs that people talk to: `run`, in a container of its own of the live release, and `exec`, in a
//! running instance. When the person has gone, the program is ended; what `exec` has started outlives an agent
//! that is gone: the engine has no way to end it.

use rusqlite::Connection;
use serde_json::json;

use super::environment::{self, EnvironmentError, Purpose};
use super::{Agent, is_meant, rollback};
use crate::config::{App, Command};
use crate::engine::session::{Handle, Session};
use crate::engine::{EngineError, JobSpec};
use crate::principal::Requester;
use crate::store::actions::{self, Kind};
use crate::store::instances::{self, Instance};
use crate::store::jobs::{self, Job, JobKind};
use crate::store::ours::mark;
use crate::store::releases::Release;
use crate::store::{StoreError, now};

/// What a person wants to run.
pub struct Wanted {
    /// At least one.
    pub argv: Vec<String>,
    pub terminal: bool,
}

/// A program that runs for a person.
pub struct Opened {
    pub session: Session,
    /// The container's name.
    pub container: String,
    /// Its own container, which is removed with it.
    job: Option<Job>,
}

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("{0}")]
    Wrong(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

type Result<T> = std::result::Result<T, SessionError>;

impl From<EnvironmentError> for SessionError {
    fn from(error: EnvironmentError) -> Self {
        match error {
            EnvironmentError::Store(error) => error.into(),
            EnvironmentError::Engine(error) => error.into(),
            other => Self::Wrong(other.to_string()),
        }
    }
}

/// Starts a program in a container of its own, with the image, the settings and the secrets of the live
/// release.
pub async fn run(agent: &Agent, app: &App, wanted: Wanted, by: Requester) -> Result<Opened> {
    let name = app.name.clone();
    let live = agent
        .store
        .read(move |db| rollback::live(db, &name))
        .await?;
    let nothing = || SessionError::Wrong(format!("nothing of `{}` is live yet", app.name));
    let live = live.ok_or_else(nothing)?;
    let service = live.main().ok_or_else(nothing)?;
    let container = format!("cutover-{}-run-{:x}-{}", app.name, now(), &mark()[..8]);
    let environment = environment::of(agent, &live, service, &container, Purpose::App).await?;
    let (app, release) = (app.name.clone(), live.id.clone());
    let job = Job::new(container.clone(), app.clone(), release, JobKind::Run, None);
    let (row, detail) = (job.clone(), detail(&wanted, &container));
    let record = move |db: &Connection| {
        actions::insert(db, Kind::Run, Some(&app), &detail, &by)?;
        jobs::insert(db, &row)
    };
    agent.store.write(record).await?;
    let command = Command::Program(wanted.argv);
    let spec = JobSpec {
        job: &job,
        service,
        environment: &environment,
        command: &command,
        deadline: std::time::Duration::MAX,
        terminal: Some(wanted.terminal),
        apart: false,
        collect: None,
    };
    match agent.engine.open_job(&spec).await {
        Ok(session) => Ok(Opened {
            session,
            container,
            job: Some(job),
        }),
        Err(error) => {
            remove(agent, &job).await;
            Err(error.into())
        }
    }
}

/// Starts a program in an instance of the live release: the named one, or the first of a process, of
/// `web` if none is named.
pub async fn exec(
    agent: &Agent,
    app: &App,
    wanted: Wanted,
    instance: Option<String>,
    by: Requester,
) -> Result<Opened> {
    let name = app.name.clone();
    let found = agent.store.read(move |db| {
        let live = rollback::live(db, &name)?;
        let all = match &live {
            Some(live) => instances::of_release(db, &live.id)?,
            None => Vec::new(),
        };
        Ok((live, all))
    });
    let (live, all) = found.await?;
    let chosen = chosen(agent, &all, live.as_ref(), instance.as_deref())?;
    let instance = chosen.ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|it| format!("`{}`", it.name)).collect();
        SessionError::Wrong(match names.is_empty() {
            true => format!("`{}` has no running instance", app.name),
            false => format!(
                "there is no such instance: `{}` has {}",
                app.name,
                names.join(", ")
            ),
        })
    })?;
    let detail = detail(&wanted, &instance.name);
    let app = app.name.clone();
    let record = move |db: &Connection| actions::insert(db, Kind::Exec, Some(&app), &detail, &by);
    agent.store.write(record).await?;
    let (engine, ours) = (&agent.engine, instance.ours());
    let opened = engine.open_execution(&ours, &wanted.argv, wanted.terminal);
    Ok(Opened {
        session: opened.await?,
        container: instance.name.clone(),
        job: None,
    })
}

fn chosen<'a>(
    agent: &Agent,
    all: &'a [Instance],
    live: Option<&Release>,
    wanted: Option<&str>,
) -> Result<Option<&'a Instance>> {
    let meant: Vec<_> = match wanted {
        None => {
            let main = live.and_then(Release::main);
            let of_main = |it: &&Instance| main.is_some_and(|main| it.service == main.name);
            all.iter().filter(of_main).collect()
        }
        Some(wanted) => one_process(all, wanted)?,
    };
    let mut running = meant.into_iter();
    Ok(running.find(|it| !agent.tend.is_down(&it.name)))
}

/// The instances that a person names, which must be of one process: that one of them is down is no reason to run
/// something in another process.
fn one_process<'a>(all: &'a [Instance], wanted: &str) -> Result<Vec<&'a Instance>> {
    let meant = all.iter().filter(|it| is_meant(&it.name, wanted));
    let meant: Vec<_> = meant.collect();
    if meant.iter().all(|it| it.service == meant[0].service) {
        return Ok(meant);
    }
    let names: Vec<_> = meant.iter().map(|it| format!("`{}`", it.name)).collect();
    Err(SessionError::Wrong(format!(
        "`{}` fits instances of more than one process: give a longer end of {}",
        wanted.escape_debug(),
        names.join(" or ")
    )))
}

/// Who ran what, for the record. Arguments may be secret, so they are only counted.
fn detail(wanted: &Wanted, container: &str) -> serde_json::Value {
    json!({
        "program": wanted.argv[0],
        "arguments": wanted.argv.len() - 1,
        "container": container,
    })
}

impl Opened {
    /// Ends the program if it still runs, and removes its container if that is its own.
    pub async fn close(self, agent: &Agent) {
        let Self { session, job, .. } = self;
        let handle = session.handle.clone();
        // A program that reads its input ends by itself.
        drop(session);
        match job {
            Some(job) => remove(agent, &job).await,
            None => hang_up(agent, &handle).await,
        }
    }
}

async fn hang_up(agent: &Agent, handle: &Handle) {
    for signal in ["HUP", "TERM", "KILL"] {
        match agent.engine.ended_with(handle).await {
            Ok(None) => {}
            _ => return,
        }
        let _ = agent.engine.signal(handle, signal).await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

/// Removes the container of a run. If the engine is away, the sweep does.
async fn remove(agent: &Agent, job: &Job) {
    let removed = agent.engine.remove(&job.ours()).await;
    let name = job.name.clone();
    let forget = move |db: &Connection| match removed {
        Ok(()) => jobs::delete(db, &name),
        Err(_) => jobs::ended(db, &name, None),
    };
    if let Err(error) = agent.store.write(forget).await {
        tracing::warn!(app = %job.app, container = job.name, %error, "the end of a run is not recorded");
    }
}

/// Ends the runs that began before `started`: nobody is connected to them any more.
pub async fn end_before(agent: &Agent, started: i64) -> super::Result<()> {
    let open = agent.store.read(|db| jobs::open(db, JobKind::Run)).await?;
    for job in open.iter().filter(|job| job.started_at < started) {
        tracing::info!(app = %job.app, container = job.name, "ending a run of an earlier agent");
        remove(agent, job).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeploymentId, ReleaseId};

    #[test]
    fn what_names_instances_of_two_processes_is_refused() {
        let (app, id) = ("hello".parse().unwrap(), DeploymentId::new());
        let all = ["web", "worker", "my-worker"].map(|service| {
            let service = service.parse().unwrap();
            Instance {
                name: super::super::instance_name(&app, &id, &service, 0),
                app: app.clone(),
                release: ReleaseId::new(),
                service,
                deployment: id.clone(),
                endpoint: None,
                mark: None,
                engine: None,
            }
        });
        for (wanted, process) in [
            ("worker-0", "worker"),
            ("my-worker", "my-worker"),
            ("web-0", "web"),
        ] {
            let meant = one_process(&all, wanted).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(meant[0].service.as_str(), process);
        }
        assert!(one_process(&all, "worker-1").unwrap().is_empty());
        let error = one_process(&all, "0").unwrap_err().to_string();
        assert!(error.contains("-my-worker-0`"), "{error}");
    }
}
