//! The live table: claimed by requests, replaced whole by the agent.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::live::{Live, NoRoute};
use super::share::{Claim, Displaced, Served};
use super::stats::RouteStats;
use super::table::{Page, Table};
use crate::proxy::watch::Watches;

/// How long a drained route's counters are kept.
const REMEMBERED: Duration = Duration::from_secs(600);
/// And of how many at most.
const MAX_REMEMBERED: usize = 256;

pub struct Routes {
    live: RwLock<Live>,
    /// Routes that lost their place, while they drain and for a while after.
    retired: Mutex<Vec<Arc<Served>>>,
    /// The generation, for those who wait for a target.
    pub(super) switched: watch::Sender<u64>,
    /// Requests that are held back now.
    pub(super) held: AtomicUsize,
    pub watches: Arc<Watches>,
}

impl Routes {
    pub fn new(table: Table, watches: Arc<Watches>) -> Self {
        Self {
            live: RwLock::new(Live::build(table, &[])),
            retired: Mutex::default(),
            switched: watch::Sender::new(0),
            held: AtomicUsize::new(0),
            watches,
        }
    }

    pub fn table(&self) -> Arc<Table> {
        self.live.read().table.clone()
    }

    pub fn generation(&self) -> u64 {
        self.live.read().table.generation
    }

    /// The table's own page for a status.
    pub fn page(&self, status: u16) -> Option<Page> {
        self.live.read().table.pages.get(&status).cloned()
    }

    /// Puts a hold on the route that `host` (as sent, maybe with a port) and `path` lead to.
    pub fn claim(&self, host: &str, path: &str) -> Result<Claim, NoRoute> {
        let live = self.live.read();
        // Under the lock: a claim is either made before the switch, and then the drain waits for
        // it, or sees the new table.
        live.find(host, path).map(Served::claim)
    }

    /// Tells the tunnels and event streams of every route to leave within `window`.
    pub fn close_streams(&self, window: Duration) {
        let retired = self.retired.lock().clone();
        for served in self.live().iter().chain(&retired) {
            served.close_streams(window);
        }
        self.watches.wake_all();
    }

    /// Routes every request that is claimed from now on by `table`.
    pub fn switch(&self, table: Table) {
        let next = Live::build(table, &self.live.read().served);
        let kept: Vec<u64> = next.served.iter().map(|s| s.id).collect();
        let served_next = next.served.clone();
        // Held throughout: who asks meanwhile would find the old routes neither here nor there, and
        // take them for drained.
        let mut retired = self.retired.lock();
        let before = std::mem::replace(&mut *self.live.write(), next);
        let displaced: Vec<_> = before
            .served
            .iter()
            .filter(|s| !kept.contains(&s.id))
            .cloned()
            .collect();
        for old in &displaced {
            // No new claim can be made on it any more.
            old.set_draining();
            let successors = served_next
                .iter()
                .filter(|s| s.route.app == old.route.app)
                .map(|s| (s.clone(), s.counters.snapshot()))
                .collect();
            *old.displaced.lock() = Some(Displaced {
                at: Instant::now(),
                in_flight: old.in_flight(),
                counted: old.counters.snapshot(),
                successors,
                empty_at: None,
                drained_for: None,
            });
            old.prune_pools();
        }
        retired.extend(displaced);
        drop(retired);
        self.switched.send_modify(|n| *n += 1);
    }

    /// Routes of `app` older than `before` that no longer serve. `None`: one of them still does.
    pub fn retired(&self, app: &str, before: u64) -> Option<Vec<Arc<Served>>> {
        let wanted = |s: &&Arc<Served>| s.route.app == app && s.route.generation < before;
        // In this order: between the two a route may move from the first to the second.
        let serving = self.live.read().served.iter().any(|s| wanted(&s));
        let retired = self.retired.lock();
        (!serving).then(|| retired.iter().filter(wanted).cloned().collect())
    }

    pub fn stats(&self) -> Vec<RouteStats> {
        let live = self.live.read().served.clone();
        let retired = self.retired.lock().clone();
        live.iter().chain(&retired).map(|s| s.stats()).collect()
    }

    /// Requests and tunnels under way, on whatever route.
    pub fn under_way(&self) -> u64 {
        let live = self.live.read().served.clone();
        let retired = self.retired.lock().clone();
        let all = live.iter().chain(&retired);
        all.map(|s| s.in_flight() + s.websockets()).sum()
    }

    pub fn live(&self) -> Vec<Arc<Served>> {
        self.live.read().served.clone()
    }

    /// Closes connections to apps that have been idle for too long and forgets old routes.
    pub fn tidy(&self) {
        let live = self.live.read().served.clone();
        for served in &live {
            served.prune_pools();
        }
        let mut retired = self.retired.lock();
        let spare = retired.len().saturating_sub(MAX_REMEMBERED);
        let mut seen = 0;
        retired.retain(|served| {
            served.prune_pools();
            seen += 1;
            let mut displaced = served.displaced.lock();
            let Some(displaced) = displaced.as_mut() else {
                return true;
            };
            if served.in_flight() + served.websockets() > 0 {
                return true;
            }
            // A successor that is kept here would keep its own successors, and so on.
            let since = *displaced.empty_at.get_or_insert_with(Instant::now);
            since.elapsed() < REMEMBERED && seen > spare
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::route;
    use super::*;

    #[test]
    fn an_unchanged_route_keeps_its_object_and_a_changed_one_retires() {
        let routes = Routes::new(Table::default(), Arc::default());
        let table = |generation, b| {
            Table::new(
                generation,
                vec![route("a", &["a"], "/", 1), route("b", &["b"], "/", b)],
            )
        };
        routes.switch(table(1, 1));
        let (a, b) = (routes.claim("a", "/"), routes.claim("b", "/"));
        routes.switch(table(2, 2));
        assert!(!a.unwrap().served().is_draining());
        let b = b.unwrap();
        assert!(b.served().is_draining());
        assert!(routes.retired("b", 3).is_none(), "2 still serves");
        assert_eq!(routes.retired("b", 2).unwrap()[0].in_flight(), 1);
        drop(b);
        assert_eq!(routes.retired("b", 2).unwrap()[0].in_flight(), 0);
    }
}
