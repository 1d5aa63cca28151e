//! How many apps are fetched and built at once, and which ones.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ids::AppName;

pub struct Slots {
    count: u32,
    free: Arc<Semaphore>,
    building: Arc<Mutex<BTreeSet<AppName>>>,
}

/// The turn of one app, until it is dropped.
pub struct Slot {
    app: AppName,
    building: Arc<Mutex<BTreeSet<AppName>>>,
    _permit: OwnedSemaphorePermit,
}

impl Default for Slots {
    /// Builds are bound by the processors: running more of them than that makes nothing faster.
    fn default() -> Self {
        let count = std::thread::available_parallelism().map_or(2, |n| n.get().max(2));
        Self {
            count: count as u32,
            free: Arc::new(Semaphore::new(count)),
            building: Arc::default(),
        }
    }
}

impl Slots {
    /// The apps that are being built, if there is no free slot.
    pub fn taken(&self) -> Option<Vec<AppName>> {
        let full = self.free.available_permits() == 0;
        full.then(|| self.building.lock().iter().cloned().collect())
    }

    /// All of them, if nothing is being built. Builds wait until this is dropped.
    pub fn all(&self) -> Option<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_many_owned(self.count).ok()
    }

    /// Waits for a slot.
    pub async fn take(&self, app: &AppName) -> Slot {
        let permit = self.free.clone().acquire_owned().await;
        self.building.lock().insert(app.clone());
        Slot {
            app: app.clone(),
            building: self.building.clone(),
            _permit: permit.expect("the semaphore is never closed"),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.building.lock().remove(&self.app);
    }
}
