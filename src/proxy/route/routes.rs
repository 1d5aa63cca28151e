//! The live table: claimed by requests, replaced whole by the agent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::claim::Claim;
use super::live::{LiveTable, NoRoute};
use super::share::{Displaced, LiveShare};
use super::stats::RouteStats;
use super::table::{Page, Table};
use super::tally::Tally;
use crate::proxy::spans::Spans;
use crate::proxy::watch::Watches;

/// How long the counters of a drained share are kept.
const REMEMBERED: Duration = Duration::from_secs(600);
/// The most releases of an app whose tallies are told.
const MAX_TALLIES: usize = 4;
/// The most drained shares whose counters are kept.
const MAX_REMEMBERED: usize = 256;

pub struct Routes {
    live: RwLock<LiveTable>,
    /// Shares that have lost their place in the table, kept while they drain and for a while after
    /// that.
    retired: Mutex<Vec<Arc<LiveShare>>>,
    /// Changes with each switch, for requests that wait for a target.
    pub(super) switched: watch::Sender<u64>,
    /// The number of requests that are held back now.
    pub(super) held: AtomicUsize,
    pub watches: Arc<Watches>,
    pub spans: Arc<Spans>,
    /// Why some of the table's links cannot be followed.
    closed_links: Mutex<Vec<String>>,
}

impl Routes {
    pub fn new(table: Table, watches: Arc<Watches>) -> Self {
        let spans = Arc::new(Spans::default());
        spans.set_rate(table.traced);
        Self {
            live: RwLock::new(LiveTable::build(table, &[])),
            retired: Mutex::default(),
            switched: watch::Sender::new(0),
            held: AtomicUsize::new(0),
            watches,
            spans,
            closed_links: Mutex::default(),
        }
    }

    /// Changes with each switch.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.switched.subscribe()
    }

    pub fn closed_links(&self) -> Vec<String> {
        self.closed_links.lock().clone()
    }

    /// Says once why.
    pub fn links_are_closed(&self, why: Vec<String>) {
        let mut known = self.closed_links.lock();
        for why in why.iter().filter(|why| !known.contains(why)) {
            tracing::error!("{why}");
        }
        *known = why;
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

    /// Claims the next share of the route for `host` (as sent, possibly with a port) and `path`.
    pub fn claim(&self, host: &str, path: &str) -> Result<Claim, NoRoute> {
        let live = self.live.read();
        // Under the lock: a claim is either made before the switch, so that the drain waits for it, or
        // sees the new table.
        let route = live.find(host, path)?;
        Ok(Claim::new(route.next_share()))
    }

    /// The same, but only within `app`, and only a share that has targets and whose id is not in `ids`.
    pub fn claim_other(&self, host: &str, path: &str, app: &str, ids: &[u64]) -> Option<Claim> {
        let live = self.live.read();
        let route = live.find(host, path).ok()?;
        let own = route.app == app;
        own.then(|| route.other_share(ids))
            .flatten()
            .map(Claim::new)
    }

    /// The same, but only the share of the release that is warm, unless its id is `id`.
    pub fn claim_warm(&self, host: &str, path: &str, app: &str, id: u64) -> Option<Claim> {
        let live = self.live.read();
        let route = live.find(host, path).ok()?;
        let warm = route.warm().filter(|warm| warm.id != id)?;
        (route.app == app).then(|| Claim::new(warm))
    }

    /// Counts a request that was refused because its head is too long. Returns whose it was.
    pub fn count_long_head(&self, host: &str, path: &str) -> Option<String> {
        let live = self.live.read();
        let share = live.find(host, path).ok()?.first_share();
        share.counters.long_requests.fetch_add(1, Relaxed);
        Some(share.app.clone())
    }

    /// Tells the tunnels and event streams of every route to end within `window`.
    pub fn close_streams(&self, window: Duration) {
        let retired = self.retired.lock().clone();
        for share in self.shares().iter().chain(&retired) {
            share.close_streams(window);
        }
        self.watches.wake_all();
    }

    /// From now on, `table` routes every request that is claimed.
    pub fn switch(&self, table: Table) {
        self.spans.set_rate(table.traced);
        let next = LiveTable::build(table, &self.shares());
        let next_shares: Vec<_> = next.shares().cloned().collect();
        // Locked throughout: otherwise a drain could meanwhile find the old shares neither in the table
        // nor among the retired ones, and consider them drained.
        let mut retired = self.retired.lock();
        let before = std::mem::replace(&mut *self.live.write(), next);
        let displaced: Vec<_> = before
            .shares()
            .filter(|old| next_shares.iter().all(|next| next.id != old.id))
            .cloned()
            .collect();
        for old in &displaced {
            // It can no longer be claimed.
            old.set_draining();
            let successors = next_shares
                .iter()
                .filter(|s| s.app == old.app)
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
        let ids: Vec<_> = displaced.iter().map(|old| old.id).collect();
        retired.extend(displaced);
        drop(retired);
        // Requests that still connect to a target that was taken away go on to another one.
        ids.into_iter().for_each(|id| self.watches.wake_share(id));
        self.switched.send_modify(|n| *n += 1);
    }

    /// The shares of `app` older than `before` that no longer serve. `None`: a route of the app has not
    /// changed since.
    pub fn retired(&self, app: &str, before: u64) -> Option<Vec<Arc<LiveShare>>> {
        let wanted = |s: &&Arc<LiveShare>| s.app == app && s.generation < before;
        // In this order, because a share may move from the live table to the retired ones in between.
        let serving = self.live.read().has_older(app, before);
        let retired = self.retired.lock();
        (!serving).then(|| retired.iter().filter(wanted).cloned().collect())
    }

    pub fn stats(&self) -> Vec<RouteStats> {
        let live = self.shares();
        let retired = self.retired.lock().clone();
        live.iter().chain(&retired).map(|s| s.stats()).collect()
    }

    /// What became of the requests of an app's releases of late; the newest release comes first.
    pub fn tallies(&self, app: &str) -> Vec<Tally> {
        let live = self.shares();
        let retired = self.retired.lock().clone();
        let mut all: Vec<Tally> = Vec::new();
        for share in live.iter().chain(&retired).filter(|it| it.app == app) {
            let tally = share.tally();
            match all.iter_mut().find(|it| it.release == tally.release) {
                Some(same) => same.add(tally),
                None => all.push(tally),
            }
        }
        all.sort_by_key(|it| std::cmp::Reverse(it.generation));
        all.truncate(MAX_TALLIES);
        all
    }

    /// The number of requests and tunnels in progress, on any route.
    pub fn under_way(&self) -> u64 {
        let live = self.shares();
        let retired = self.retired.lock().clone();
        let all = live.iter().chain(&retired);
        all.map(|s| s.in_flight() + s.websockets()).sum()
    }

    fn shares(&self) -> Vec<Arc<LiveShare>> {
        self.live.read().shares().cloned().collect()
    }

    /// Closes connections to apps that have been idle for too long, and forgets old shares.
    pub fn tidy(&self) {
        let live = self.shares();
        for share in &live {
            share.prune_pools();
            share.record.turn();
        }
        let mut retired = self.retired.lock();
        let spare = retired.len().saturating_sub(MAX_REMEMBERED);
        let mut seen = 0;
        retired.retain(|share| {
            share.prune_pools();
            seen += 1;
            let mut displaced = share.displaced.lock();
            let Some(displaced) = displaced.as_mut() else {
                return true;
            };
            if share.in_flight() + share.websockets() > 0 {
                return true;
            }
            // Not kept for ever: a share keeps its successors, which in turn keep theirs, and so on.
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
        assert!(!a.unwrap().share().is_draining());
        let b = b.unwrap();
        assert!(b.share().is_draining());
        assert!(routes.retired("b", 3).is_none(), "2 still serves");
        assert_eq!(routes.retired("b", 2).unwrap()[0].in_flight(), 1);
        drop(b);
        assert_eq!(routes.retired("b", 2).unwrap()[0].in_flight(), 0);
    }
}
