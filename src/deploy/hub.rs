//! State that is only in memory: wake-ups, and handles on running deployments.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::ids::{AppName, CommitId, DeploymentId};
use crate::store::log::Log;

/// How long what was found for a waiting deployment counts.
const FRESH: Duration = Duration::from_secs(60);

/// Nothing is lost with it: everything in it can be restored from the database.
pub struct Hub {
    wakers: Shared<AppName, Arc<Notify>>,
    running: Shared<DeploymentId, Running>,
    /// What was found for the deployment of an app that waits, and when.
    found: Shared<AppName, (DeploymentId, CommitId, Instant)>,
    changes: watch::Sender<u64>,
    /// How often every app was asked to remove what it does not need.
    tidied: AtomicU64,
}

#[derive(Clone)]
struct Running {
    app: AppName,
    /// It is only being looked at, while another one runs.
    waits: bool,
    log: Log,
    cancel: CancellationToken,
    newer: Newer,
}

/// The newer deployment that supersedes this one, if any.
pub(super) type Newer = Arc<OnceLock<DeploymentId>>;

impl Hub {
    pub(super) fn new() -> Self {
        Self {
            wakers: Shared::default(),
            running: Shared::default(),
            found: Shared::default(),
            changes: watch::Sender::new(0),
            tidied: AtomicU64::new(0),
        }
    }

    /// Wakes the app's worker: there may be something to do.
    pub fn wake(&self, app: &AppName) {
        self.waker(app).notify_one();
        self.changed();
    }

    /// Has the worker of every app remove the images that the app does not need, once nothing is being deployed
    /// for it.
    pub(super) fn tidy(&self) {
        self.tidied.fetch_add(1, Relaxed);
        let wakers: Vec<_> = self.wakers.lock().values().cloned().collect();
        wakers.iter().for_each(|waker| waker.notify_one());
    }

    /// How often [`Hub::tidy`] was called.
    pub(super) fn tidied(&self) -> u64 {
        self.tidied.load(Relaxed)
    }

    /// The app's notifier, which keeps a wake-up that comes before its worker starts.
    pub(super) fn waker(&self, app: &AppName) -> Arc<Notify> {
        self.wakers.lock().entry(app.clone()).or_default().clone()
    }

    /// Notifies everyone who watches deployments that one has changed.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// A receiver that is notified whenever a deployment changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn enter(
        &self,
        app: &AppName,
        id: &DeploymentId,
        log: &Log,
    ) -> (CancellationToken, Newer) {
        let (cancel, newer) = (CancellationToken::new(), Newer::default());
        let running = Running {
            app: app.clone(),
            waits: false,
            log: log.clone(),
            cancel: cancel.clone(),
            newer: newer.clone(),
        };
        self.running.lock().insert(id.clone(), running);
        self.changed();
        (cancel, newer)
    }

    /// Notes that a deployment that was entered is only being looked at.
    pub(super) fn waits(&self, id: &DeploymentId) {
        if let Some(entered) = self.running.lock().get_mut(id) {
            entered.waits = true;
        }
    }

    /// Keeps what was found for a deployment that waits: it need not be fetched again at its turn.
    pub(super) fn found(&self, app: &AppName, id: &DeploymentId, commit: &CommitId) {
        let found = (id.clone(), commit.clone(), Instant::now());
        self.found.lock().insert(app.clone(), found);
    }

    /// What was found for a deployment a moment ago. After that, its branch may have moved on.
    pub(super) fn take_found(&self, app: &AppName, of: &DeploymentId) -> Option<CommitId> {
        let (id, commit, at) = self.found.lock().remove(app)?;
        (id == *of && at.elapsed() < FRESH).then_some(commit)
    }

    pub(super) fn leave(&self, id: &DeploymentId) {
        self.running.lock().remove(id);
        self.changed();
    }

    /// Asks a running deployment to stop; false if it is not running.
    pub fn cancel(&self, id: &DeploymentId) -> bool {
        let running = self.running.lock().get(id).cloned();
        running.inspect(|running| running.cancel.cancel()).is_some()
    }

    /// Asks a running deployment to stop for a newer one, unless it is stopping already.
    pub(super) fn supersede(&self, id: &DeploymentId, newer: &DeploymentId) {
        let running = self.running.lock().get(id).cloned();
        if let Some(running) = running.filter(|running| !running.cancel.is_cancelled()) {
            let _ = running.newer.set(newer.clone());
            running.cancel.cancel();
        }
    }

    /// The app's deployment that is running.
    pub(super) fn running_of(&self, app: &AppName) -> Option<DeploymentId> {
        let running = self.running.lock();
        let found = (running.iter()).find(|(_, running)| running.app == *app && !running.waits);
        found.map(|(id, _)| id.clone())
    }

    /// The log of a running deployment.
    pub(super) fn log(&self, id: &DeploymentId) -> Option<Log> {
        self.running
            .lock()
            .get(id)
            .map(|running| running.log.clone())
    }

    /// The length of a running deployment's log, in bytes.
    pub fn log_length(&self, id: &DeploymentId) -> Option<watch::Receiver<u64>> {
        self.running
            .lock()
            .get(id)
            .map(|running| running.log.watch())
    }
}
