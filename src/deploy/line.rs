//! One running deployment: its journal, its log, and how it leaves the line.

use std::time::Duration;

use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

use super::checkpoint::Checkpoint;
use super::hub::Newer;
use super::{Agent, Result};
use crate::config::App;
use crate::engine::{EngineError, advice};
use crate::ids::DeploymentId;
use crate::state::{Event, Step};
use crate::store::deployments::{self, Failure};
use crate::store::log::Log;
use crate::store::{StoreError, steps};

/// A deployment that is being run.
pub struct Line<'a> {
    pub agent: &'a Agent,
    pub app: &'a App,
    pub id: DeploymentId,
    pub log: Log,
    pub cancel: CancellationToken,
    newer: Newer,
    /// The step that has taken effect and whose record goes into the next step's commit: one fsync
    /// per step instead of two. A crash in between repeats the step, which is always allowed.
    unrecorded: parking_lot::Mutex<Option<Unrecorded>>,
}

type Record = Box<dyn FnOnce(&Connection) -> Result<()> + Send>;

struct Unrecorded {
    step: Step,
    detail: String,
    record: Record,
}

/// The result of a step.
pub struct Done<T> {
    pub value: T,
    /// A few words for people, shown with the step.
    pub detail: String,
    record: Record,
}

impl<T> Done<T> {
    pub fn new(value: T, detail: impl Into<String>) -> Self {
        Self {
            value,
            detail: detail.into(),
            record: Box::new(|_| Ok(())),
        }
    }

    /// Writes more in the transaction that marks the step done.
    pub fn recording(
        mut self,
        record: impl FnOnce(&Connection) -> Result<()> + Send + 'static,
    ) -> Self {
        self.record = Box::new(record);
        self
    }
}

/// Why a deployment leaves the line before the switch.
#[derive(Debug)]
pub enum Stop {
    Failed(Failure),
    Cancelled,
    /// A newer push takes its place.
    Superseded(Failure),
    /// There is nothing to do.
    Skipped(Failure),
    /// Docker or the database became unavailable: the deployment runs again when they are back.
    Interrupted(String),
    /// Its app was stopped: the deployment runs again when the app is started.
    PutOff,
}

impl Stop {
    pub fn failed(code: &str, message: impl Into<String>) -> Self {
        Stop::Failed(Failure::new(code, message))
    }

    pub fn superseded(code: &str, why: impl Into<String>) -> Self {
        Stop::Superseded(Failure::new(code, why))
    }

    pub fn skipped(code: &str, why: impl Into<String>) -> Self {
        Stop::Skipped(Failure::new(code, why))
    }

    pub fn with_tail(mut self, tail: Vec<String>) -> Self {
        if let Stop::Failed(failure) = &mut self {
            failure.log_tail = tail;
        }
        self
    }

    /// Adds the last lines of the container that failed, and what they are known to mean.
    pub fn with_output(mut self, tail: Vec<String>) -> Self {
        if let (Stop::Failed(failure), Some(advice)) = (&mut self, advice::of_output(&tail)) {
            failure.message.push_str(&format!("; {advice}"));
        }
        self.with_tail(tail)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Stop::Interrupted(error.to_string())
    }
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Unreachable { .. } => Stop::Interrupted(error.to_string()),
            other => Stop::failed("engine", other.to_string()),
        }
    }
}

impl<'a> Line<'a> {
    pub fn enter(agent: &'a Agent, app: &'a App, id: DeploymentId) -> Result<Self> {
        let log = Log::open(&agent.store.log_path(&id))
            .map_err(|e| StoreError::Refused(format!("cannot open the log of `{id}`: {e}")))?;
        let (cancel, newer) = agent.hub.enter(&app.name, &id, &log);
        Ok(Self {
            agent,
            app,
            id,
            log,
            cancel,
            newer,
            unrecorded: Default::default(),
        })
    }

    /// A step before the switch: it can be cancelled, and what it did can be undone.
    pub async fn step<T>(
        &self,
        step: Step,
        effect: impl Future<Output = std::result::Result<Done<T>, Stop>>,
    ) -> std::result::Result<T, Stop> {
        self.step_after(step, |_| Ok(()), |()| effect).await
    }

    /// The same with an `intent` that is on disk before the effect; the effect gets what it returned.
    pub async fn step_after<I: Send + 'static, T, F>(
        &self,
        step: Step,
        intent: impl FnOnce(&Connection) -> Result<I> + Send + 'static,
        effect: impl FnOnce(I) -> F,
    ) -> std::result::Result<T, Stop>
    where
        F: Future<Output = std::result::Result<Done<T>, Stop>>,
    {
        let intended = self.begin(step, intent).await?;
        let outcome = tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Stop::Cancelled),
            outcome = effect(intended) => outcome,
        };
        let outcome = outcome.map_err(|stop| in_step(step, stop, &self.log));
        Checkpoint::Effected(step).reach();
        let done = outcome?;
        self.log.line(&format!("[{step}] {}", done.detail));
        Ok(self.note(step, done))
    }

    /// Stores that a step begins, in one commit with the record of the step before and with the
    /// `intent`: what must be on disk before the effect.
    pub async fn begin<T: Send + 'static>(
        &self,
        step: Step,
        intent: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let unrecorded = self.unrecorded.lock().take();
        let id = self.id.clone();
        let value = self
            .agent
            .store
            .write(move |db| {
                if let Some(before) = unrecorded {
                    (before.record)(db)?;
                    steps::done(db, &id, before.step, &before.detail)?;
                }
                deployments::apply(db, &id, Event::Begin(step))?;
                steps::started(db, &id, step)?;
                intent(db)
            })
            .await?;
        self.agent.hub.changed();
        Checkpoint::Started(step).reach();
        Ok(value)
    }

    /// Keeps a step's record for the next commit.
    pub fn note<T>(&self, step: Step, done: Done<T>) -> T {
        let Done {
            value,
            detail,
            record,
        } = done;
        *self.unrecorded.lock() = Some(Unrecorded {
            step,
            detail,
            record,
        });
        value
    }

    /// Stores the record that is still pending, together with `last`.
    pub async fn record<T: Send + 'static>(
        &self,
        last: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let unrecorded = self.unrecorded.lock().take();
        let id = self.id.clone();
        let value = self.agent.store.write(move |db| {
            if let Some(before) = unrecorded {
                (before.record)(db)?;
                steps::done(db, &id, before.step, &before.detail)?;
            }
            last(db)
        });
        let value = value.await;
        self.agent.hub.changed();
        value
    }

    /// Turns a cancelled stop into a superseded one if a newer deployment took this one's place.
    pub fn told(&self, stop: Stop) -> Stop {
        match (stop, self.newer.get()) {
            (Stop::Cancelled, Some(newer)) => {
                let why = format!("the newer deployment `{newer}` took its place");
                Stop::superseded("superseded", why)
            }
            (stop, _) => stop,
        }
    }

    /// Repeats what must eventually succeed, at growing intervals, until it does.
    pub async fn insist<T, E, F>(&self, what: &str, attempt: impl Fn() -> F) -> T
    where
        E: std::fmt::Display,
        F: Future<Output = std::result::Result<T, E>>,
    {
        let mut pause = Duration::from_millis(50);
        loop {
            match attempt().await {
                Ok(value) => return value,
                Err(error) => {
                    tracing::warn!(deployment = %self.id, %error, "failed to {what}; retrying");
                    self.log
                        .line(&format!("failed to {what}: {error}; retrying"));
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.agent.hub.leave(&self.id);
    }
}

/// Names the step that failed. What is secret is hidden in the output that is kept with it.
pub(super) fn in_step(step: Step, mut stop: Stop, log: &Log) -> Stop {
    if let Stop::Failed(failure) = &mut stop {
        failure.log_tail = log.masked(std::mem::take(&mut failure.log_tail));
        failure.step.get_or_insert_with(|| step.to_string());
    }
    stop
}
