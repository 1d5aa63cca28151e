//! Idle connections to one target of one share object. A pool is dropped with its share: when an
//! address is reused, it belongs to another pool, so no request reaches the wrong app.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::connection::Upstream;
use crate::proxy::worker;

/// The most idle connections that are kept for each target and thread.
const MAX_IDLE: usize = 512;

#[derive(Default)]
// Boxed: it is large, and moves from hand to hand several times a request.
#[allow(clippy::vec_box)]
pub struct Pool([Mutex<Vec<Box<Upstream>>>; worker::MAX]);

impl Pool {
    /// The connection that was used last, if it has been idle for less than `at_most` and the app has
    /// not closed it.
    pub fn take(&self, at_most: Duration) -> Option<Box<Upstream>> {
        let slot = &self.0[worker::slot()];
        loop {
            let mut upstream = slot.lock().pop()?;
            if upstream.idle_since.elapsed() < at_most {
                if upstream.is_silent() {
                    return Some(upstream);
                }
            } else {
                // The connections below it have been idle for longer still, but for another request
                // this one may be recent enough.
                slot.lock().push(upstream);
                return None;
            }
        }
    }

    /// Keeps the connection if it can carry another request.
    pub fn put(&self, mut upstream: Box<Upstream>) {
        if !upstream.is_at_rest() {
            return;
        }
        upstream.reused = true;
        upstream.idle_since = Instant::now();
        let mut idle = self.0[worker::slot()].lock();
        if idle.len() < MAX_IDLE {
            idle.push(upstream);
        }
    }

    /// Closes the connections that have been idle for `limit`; zero: all.
    pub fn prune(&self, limit: Duration) {
        for slot in &self.0 {
            // Dropped outside the lock, because each close is a system call.
            let old: Vec<_> = {
                let mut idle = slot.lock();
                let keep = idle.partition_point(|u| u.idle_since.elapsed() >= limit);
                idle.drain(..keep).collect()
            };
            drop(old);
        }
    }
}
