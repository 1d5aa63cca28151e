//! One route as it is served: its targets, its pools, its counters, and who holds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::*};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::counters::{Counters, Outcome, Snapshot};
use super::stats::{RouteStats, State};
use super::table::Route;
use crate::proxy::access_log::{AccessLog, Entry};
use crate::proxy::upstream::target::{Dialing, Target};

/// Clients that lose a tunnel or an event stream come back; one at a time is no load.
const EACH: Duration = Duration::from_millis(200);

const SERVING: u8 = 0;
const DRAINING: u8 = 1;
const ABORT: u8 = 2;

/// A route object: one (route, generation). It outlives its place in the table until its last
/// request has finished.
pub struct Served {
    /// Unlike the generation unique in the process, and never 0.
    pub id: u64,
    pub route: Route,
    pub targets: Vec<Target>,
    pub counters: Counters,
    /// Whose turn it is among targets of equal load.
    turn: AtomicUsize,
    phase: AtomicU8,
    in_flight: AtomicU64,
    websockets: AtomicU64,
    /// Told when the last request or tunnel of a draining route has gone.
    emptied: Notify,
    /// How the tunnels and event streams are to end, once that is known.
    pub closing: watch::Sender<Option<Closing>>,
    /// How many tunnels have been given their moment.
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

/// What was true when the route lost its place in the table.
pub struct Displaced {
    pub at: Instant,
    pub in_flight: u64,
    pub counted: Snapshot,
    /// What took its place, and its counters at that moment.
    pub successors: Vec<(Arc<Served>, Snapshot)>,
    pub empty_at: Option<Instant>,
    /// The generation whose drain counts it: that of the switch which displaced it.
    pub drained_for: Option<u64>,
}

impl Served {
    pub fn new(route: Route) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let settings = &route.settings;
        let dialing = Dialing {
            h2c: settings.h2c,
            connect_timeout: Duration::from_millis(settings.connect_timeout_ms),
            keep_alive: Duration::from_millis(settings.keep_alive_ms),
        };
        let target = |&address| Target::new(address, dialing);
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            targets: route.targets.iter().map(target).collect(),
            route,
            counters: Counters::default(),
            turn: AtomicUsize::new(0),
            phase: AtomicU8::new(SERVING),
            in_flight: AtomicU64::new(0),
            websockets: AtomicU64::new(0),
            emptied: Notify::new(),
            closing: watch::Sender::new(None),
            closings: AtomicU64::new(0),
            displaced: Mutex::new(None),
        }
    }

    /// To be called under the lock that the switch takes, so that a drain waits for this claim.
    pub fn claim(self: &Arc<Self>) -> Claim {
        self.in_flight.fetch_add(1, Relaxed);
        Claim {
            served: self.clone(),
            started: Instant::now(),
            status: 0,
            target: None,
            open: true,
            log: None,
        }
    }

    pub fn is_draining(&self) -> bool {
        self.phase.load(SeqCst) != SERVING
    }

    /// The drain's deadline has passed: whoever still waits for the app must give up.
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

    pub fn websockets(&self) -> u64 {
        self.websockets.load(SeqCst)
    }

    /// Waits until nothing of it is under way.
    pub async fn empty(&self) {
        self.until(|| self.in_flight() == 0 && self.websockets() == 0)
            .await
    }

    /// Waits until no request is under way; tunnels may be.
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

    /// Tells tunnels and event streams to leave, one after the other over `window`, or less if they
    /// are few.
    pub fn close_streams(&self, window: Duration) {
        self.closing.send_if_modified(|closing| {
            // Drained before, by an agent that has crashed since: the first window stays in force.
            let first = closing.is_none();
            let websockets = self.websockets().max(1);
            // Few do not stampede: the drain need not take its time for them.
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

    /// The next tunnel's moment: one after the other, the last at the end of the window.
    pub fn closes_at(&self, closing: Closing) -> Instant {
        let turn = self.closings.fetch_add(1, Relaxed) + 1;
        let part = turn.min(closing.streams) as f64 / closing.streams as f64;
        closing.from + closing.window.mul_f64(part)
    }

    /// The least loaded target that is not in `tried` (by bits), in turn among equals; those that
    /// refused lately last.
    pub fn pick(&self, tried: u64) -> Option<usize> {
        if self.targets.len() == 1 {
            return (tried & 1 == 0).then_some(0);
        }
        let (count, turn) = (self.targets.len().min(64), self.turn.fetch_add(1, Relaxed));
        let in_turn = (0..count).map(|i| (i + turn) % count);
        let free = in_turn.filter(|i| tried & (1 << i) == 0);
        free.min_by_key(|&i| self.targets[i].load())
    }

    pub fn prune_pools(&self) {
        let limit = match self.is_draining() {
            true => Duration::ZERO,
            false => Duration::from_millis(self.route.settings.keep_alive_ms),
        };
        for target in &self.targets {
            target.prune(limit);
        }
    }

    pub fn stats(&self) -> RouteStats {
        let (in_flight, websockets) = (self.in_flight(), self.websockets());
        RouteStats {
            app: self.route.app.clone(),
            release: self.route.release.clone(),
            generation: self.route.generation,
            state: match (self.is_draining(), in_flight + websockets) {
                (false, _) => State::Serving,
                (true, 0) => State::Drained,
                (true, _) => State::Draining,
            },
            requests: self.counters.snapshot().requests,
            by_class: self.counters.by_class(),
            failures: self.counters.failures(),
            retried: self.counters.retried.load(Relaxed),
            in_flight,
            websockets,
            websockets_closed: self.counters.websockets_closed.load(Relaxed),
            latency_us: self.counters.latency_us(),
            latency_sum_us: self.counters.latency_sum_us(),
        }
    }

    fn left(&self, count: &AtomicU64) {
        if count.fetch_sub(1, SeqCst) == 1 && self.is_draining() {
            self.emptied.notify_waiters();
        }
    }
}

/// One request's hold on a route. Whoever holds it must end it with [`Claim::end`]; dropped before
/// that, the client is taken to have left.
pub struct Claim {
    served: Arc<Served>,
    started: Instant,
    /// What the client was answered.
    pub status: u16,
    target: Option<usize>,
    open: bool,
    /// What is to be written of it, and where.
    pub log: Option<(Arc<AccessLog>, Box<Entry>)>,
}

impl Claim {
    pub fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// The target in use.
    pub fn target(&self) -> Option<&Target> {
        self.target.map(|i| &self.served.targets[i])
    }

    /// Takes the target with this number, and leaves the one before.
    pub fn use_target(&mut self, target: usize) {
        self.leave_target();
        self.served.targets[target].enter();
        self.target = Some(target);
    }

    fn leave_target(&mut self) {
        if let Some(target) = self.target.take() {
            self.served.targets[target].leave();
        }
    }

    /// Counts the request and lets go of the route.
    pub fn end(&mut self, outcome: Outcome) {
        if std::mem::take(&mut self.open) {
            let took = self.started.elapsed();
            self.served.counters.count(outcome, self.status, took);
            self.leave_target();
            self.served.left(&self.served.in_flight);
            if let Some((log, mut entry)) = self.log.take() {
                entry.status = self.status;
                entry.outcome = outcome.name();
                entry.took_us = took.as_micros() as u64;
                log.write(entry);
            }
        }
    }

    /// Lets go of the route without counting: the request goes on under another claim.
    pub fn abandon(mut self) {
        self.open = false;
        self.leave_target();
        self.served.left(&self.served.in_flight);
    }

    /// The request has become a tunnel, which holds the route from now on.
    pub fn into_tunnel(mut self) -> Tunnelled {
        self.served.websockets.fetch_add(1, SeqCst);
        self.end(Outcome::Answered);
        Tunnelled(self.served.clone())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.end(Outcome::Client);
    }
}

/// A WebSocket's hold on a route.
pub struct Tunnelled(Arc<Served>);

impl Tunnelled {
    pub fn served(&self) -> &Arc<Served> {
        &self.0
    }
}

impl Drop for Tunnelled {
    fn drop(&mut self) {
        self.0.left(&self.0.websockets);
    }
}
