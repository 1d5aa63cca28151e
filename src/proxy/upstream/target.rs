//! The address of one instance, with the connections to it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::http2::Multiplexed;
use super::pool::Pool;
use crate::proxy::watch::now_ms;

/// How long a target that refused a connection is skipped if there is another one, in milliseconds.
const EJECT_MS: u64 = 2_000;

/// How a target is connected to.
#[derive(Clone, Copy, Debug)]
pub struct Dialing {
    /// Whether it speaks HTTP/2 without TLS, and nothing else.
    pub h2c: bool,
    pub connect_timeout: Duration,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// How long the head of a response may be, in bytes.
    pub head: usize,
}

pub struct Target {
    pub address: SocketAddr,
    pub dialing: Dialing,
    pub pool: Pool,
    /// Used in place of the pool if the app speaks HTTP/2.
    pub multiplexed: Multiplexed,
    in_flight: AtomicU32,
    ejected_until: AtomicU64,
}

impl Target {
    pub fn new(address: SocketAddr, dialing: Dialing) -> Self {
        Self {
            address,
            dialing,
            pool: Pool::default(),
            multiplexed: Multiplexed::default(),
            in_flight: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
        }
    }

    /// Counts a request that is sent to the target, until [`Target::leave`].
    pub fn enter(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub fn leave(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// The least value is chosen: targets that have recently refused a connection come last.
    pub fn load(&self) -> (bool, u32) {
        let ejected = self.ejected_until.load(Relaxed) > now_ms();
        (ejected, self.in_flight.load(Relaxed))
    }

    /// Skips the target for a while, because it refused a connection.
    pub fn eject(&self) {
        self.ejected_until.store(now_ms() + EJECT_MS, Relaxed);
    }

    /// Closes connections that have been idle for `limit`; zero: all that are idle.
    pub fn prune(&self, limit: Duration) {
        self.pool.prune(limit);
        self.multiplexed.prune(limit);
    }
}
