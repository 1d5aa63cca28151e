//! A share as it is served: its targets, its pools, its counters, and how many requests and tunnels
//! hold it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::*};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::counters::{Counters, Snapshot};
use super::stats::{RouteStats, State};
use super::table::{Policy, Route, Share};
use super::tally::{Record, Tally};
use crate::proxy::upstream::target::{Dialing, Target};

/// The least time between two ends of streams: clients reconnect after losing a tunnel or an event
/// stream, and one at a time is no load.
const EACH: Duration = Duration::from_millis(200);

const SERVING: u8 = 0;
const DRAINING: u8 = 1;
const ABORT: u8 = 2;

/// A share with its connections and counters. It outlives its place in the table until its last
/// request has finished.
pub struct LiveShare {
    /// Unique in the process, unlike the generation, and never 0.
    pub id: u64,
    pub app: String,
    pub release: String,
    pub generation: u64,
    /// Whether it is the route's warm one, and not one of its shares.
    is_warm: bool,
    /// The route's hosts.
    hosts: Vec<String>,
    pub path_prefix: String,
    pub policy: Policy,
    pub targets: Vec<Target>,
    pub counters: Counters,
    pub record: Record,
    /// Which of the targets of equal load is next.
    turn: AtomicUsize,
    phase: AtomicU8,
    in_flight: AtomicU64,
    /// Requests of those in flight whose body is still being taken in: the app does not know of them.
    taking_in: AtomicU64,
    websockets: AtomicU64,
    /// Notified when the last request or tunnel of a draining share has ended.
    emptied: Notify,
    /// How the tunnels and event streams are to end, once a drain has decided that.
    pub closing: watch::Sender<Option<Closing>>,
    /// How many tunnels have been assigned a time to close.
    closings: AtomicU64,
    pub displaced: Mutex<Option<Displaced>>,
}

/// Tunnels and event streams end one after the other over this window.
#[derive(Clone, Copy, Debug)]
pub struct Closing {
    pub from: Instant,
    pub window: Duration,
    pub streams: u64,
}

/// What the numbers were when the share lost its place in the table.
pub struct Displaced {
    pub at: Instant,
    pub in_flight: u64,
    pub counted: Snapshot,
    /// The shares that took its place, and their counters at that moment.
    pub successors: Vec<(Arc<LiveShare>, Snapshot)>,
    pub empty_at: Option<Instant>,
    /// The generation whose drain counts it: that of the switch that displaced it.
    pub drained_for: Option<u64>,
}

impl LiveShare {
    pub fn new(route: &Route, share: &Share, is_warm: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let policy = &route.policy;
        let dialing = Dialing {
            h2c: policy.h2c,
            connect_timeout: Duration::from_millis(policy.connect_timeout_ms),
            keep_alive: Duration::from_millis(policy.keep_alive_ms),
            head: policy.header_limit,
        };
        let target = |&address| Target::new(address, dialing);
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            app: route.app.clone(),
            release: share.release.clone(),
            generation: share.generation,
            is_warm,
            hosts: route.hosts.clone(),
            path_prefix: route.path_prefix.clone(),
            policy: policy.clone(),
            targets: share.targets.iter().map(target).collect(),
            counters: Counters::default(),
            record: Record::default(),
            turn: AtomicUsize::new(0),
            phase: AtomicU8::new(SERVING),
            in_flight: AtomicU64::new(0),
            taking_in: AtomicU64::new(0),
            websockets: AtomicU64::new(0),
            emptied: Notify::new(),
            closing: watch::Sender::new(None),
            closings: AtomicU64::new(0),
            displaced: Mutex::new(None),
        }
    }

    /// Whether it serves this share of this route unchanged; weights and the route's other shares do
    /// not matter. A release that is warm from now on must still drain: its requests belong to another
    /// object.
    pub fn is_of(&self, route: &Route, share: &Share, is_warm: bool) -> bool {
        self.is_warm == is_warm
            && (self.generation, &self.release) == (share.generation, &share.release)
            && (&self.app, &self.path_prefix) == (&route.app, &route.path_prefix)
            && (&self.hosts, &self.policy) == (&route.hosts, &route.policy)
            && self.targets.iter().map(|t| &t.address).eq(&share.targets)
    }

    pub fn is_draining(&self) -> bool {
        self.phase.load(SeqCst) != SERVING
    }

    /// The drain's deadline has passed: requests that still wait for the app must end.
    pub fn is_aborted(&self) -> bool {
        self.phase.load(SeqCst) == ABORT
    }

    pub fn set_draining(&self) {
        let _ = self
            .phase
            .compare_exchange(SERVING, DRAINING, SeqCst, SeqCst);
    }

    pub fn set_aborted(&self) {
        self.phase.store(ABORT, SeqCst);
    }

    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(SeqCst)
    }

    /// The requests and tunnels that the app has or is about to get.
    pub fn connections(&self) -> u64 {
        let requests = self.in_flight().saturating_sub(self.taking_in.load(SeqCst));
        requests + self.websockets()
    }

    /// Until it is dropped, a request's body is being taken in.
    pub fn taking_in(&self) -> impl Drop {
        struct TakingIn<'a>(&'a AtomicU64);
        impl Drop for TakingIn<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, SeqCst);
            }
        }
        self.taking_in.fetch_add(1, SeqCst);
        TakingIn(&self.taking_in)
    }

    pub fn websockets(&self) -> u64 {
        self.websockets.load(SeqCst)
    }

    /// Waits until no request and no tunnel is in progress.
    pub async fn empty(&self) {
        self.until(|| self.in_flight() == 0 && self.websockets() == 0)
            .await
    }

    /// Waits until no request is in progress; tunnels may be.
    pub async fn requests_done(&self) {
        self.until(|| self.in_flight() == 0).await
    }

    async fn until(&self, done: impl Fn() -> bool) {
        loop {
            // Registered before looking, so that no wake-up is lost between the two.
            let notified = self.emptied.notified();
            if done() {
                return;
            }
            notified.await;
        }
    }

    /// Tells tunnels and event streams to end, one after the other over `window`, or over less if they
    /// are few.
    pub fn close_streams(&self, window: Duration) {
        self.closing.send_if_modified(|closing| {
            // If an agent that has crashed since began a drain before, the first window stays in force.
            let first = closing.is_none();
            let websockets = self.websockets().max(1);
            // A few cause no stampede, so the drain need not take the whole window for them.
            let all = websockets.saturating_add(self.in_flight());
            let enough = EACH.saturating_mul(all.try_into().unwrap_or(u32::MAX));
            closing.get_or_insert(Closing {
                from: Instant::now(),
                window: window.min(enough),
                streams: websockets,
            });
            first
        });
    }

    /// When the next tunnel is to close: one after the other, the last one at the end of the window.
    pub fn closes_at(&self, closing: Closing) -> Instant {
        let turn = self.closings.fetch_add(1, Relaxed) + 1;
        let part = turn.min(closing.streams) as f64 / closing.streams as f64;
        closing.from + closing.window.mul_f64(part)
    }

    /// The least loaded target that is not in `tried`, in turn among equals; targets that have recently
    /// refused a connection come last.
    pub fn next_target(&self, tried: &[usize]) -> Option<usize> {
        if self.targets.len() == 1 {
            return tried.is_empty().then_some(0);
        }
        let (count, turn) = (self.targets.len(), self.turn.fetch_add(1, Relaxed));
        let in_turn = (0..count).map(|i| turn.wrapping_add(i) % count);
        let free = in_turn.filter(|i| !tried.contains(i));
        free.min_by_key(|&i| self.targets[i].load())
    }

    pub fn prune_pools(&self) {
        let limit = match self.is_draining() {
            true => Duration::ZERO,
            false => Duration::from_millis(self.policy.keep_alive_ms),
        };
        for target in &self.targets {
            target.prune(limit);
        }
    }

    pub fn stats(&self) -> RouteStats {
        let (in_flight, websockets) = (self.in_flight(), self.websockets());
        RouteStats {
            app: self.app.clone(),
            release: self.release.clone(),
            generation: self.generation,
            state: match (self.is_draining(), in_flight + websockets) {
                (false, _) => State::Serving,
                (true, 0) => State::Drained,
                (true, _) => State::Draining,
            },
            requests: self.counters.snapshot().requests,
            by_class: self.counters.by_class(),
            failures: self.counters.failures(),
            retried: self.counters.retried.load(Relaxed),
            rescued: self.counters.rescued.load(Relaxed),
            in_flight,
            websockets,
            websockets_closed: self.counters.websockets_closed.load(Relaxed),
            long_requests: self.counters.long_requests.load(Relaxed),
            latency_us: self.counters.latency_us(),
            latency_sum_us: self.counters.latency_sum_us(),
        }
    }

    pub fn tally(&self) -> Tally {
        self.record.tally(&self.release, self.generation)
    }

    /// Holds the share for a request, until [`LiveShare::end_request`].
    pub fn begin_request(&self) {
        self.in_flight.fetch_add(1, SeqCst);
    }

    pub fn end_request(&self) {
        self.count_down(&self.in_flight);
    }

    /// Holds the share for a WebSocket or another tunnel, until [`LiveShare::end_tunnel`].
    pub fn begin_tunnel(&self) {
        self.websockets.fetch_add(1, SeqCst);
    }

    pub fn end_tunnel(&self) {
        self.count_down(&self.websockets);
    }

    fn count_down(&self, count: &AtomicU64) {
        if count.fetch_sub(1, SeqCst) == 1 && self.is_draining() {
            self.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::route;
    use super::*;

    #[test]
    fn every_replica_gets_its_turn() {
        let address = |n: u16| (([127, 0, 0, 1]), 1 + n).into();
        let replicas = Share::whole("r", 1, (0..100).map(address).collect());
        let share = LiveShare::new(&route("a", &[], "/", 1), &replicas, false);
        let mut picked: Vec<_> = (0..100).filter_map(|_| share.next_target(&[])).collect();
        picked.sort();
        assert_eq!(picked, (0..100).collect::<Vec<_>>());
        let all_but_one: Vec<_> = (0..99).collect();
        assert_eq!(share.next_target(&all_but_one), Some(99));
        assert_eq!(share.next_target(&picked), None);
    }
}
