//! The table as it is served: finds the route of a host and a path, and picks one of its shares.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use foldhash::HashMap as FastMap;

use super::share::LiveShare;
use super::table::{Route, Table};
use crate::proxy::wire::request_target::below;

/// Why no route took a request.
#[derive(Debug, PartialEq, Eq)]
pub enum NoRoute {
    UnknownHost,
    /// The host is known, but none of its routes has a matching path prefix.
    UnknownPath,
}

/// A table with indexes to look routes up by.
#[derive(Default)]
pub struct LiveTable {
    pub table: Arc<Table>,
    routes: Vec<Arc<LiveRoute>>,
    /// By host; of each, the longest path prefix first. The keys are the table's own, so that no client
    /// can make them collide.
    exact: FastMap<String, Vec<Arc<LiveRoute>>>,
    /// By the part after `*.`.
    wildcard: FastMap<String, Vec<Arc<LiveRoute>>>,
    any: Vec<Arc<LiveRoute>>,
}

impl LiveTable {
    /// Shares that have not changed keep their object, with its pools and counters.
    pub fn build(table: Table, before: &[Arc<LiveShare>]) -> Self {
        let mut live = Self::default();
        let mut known: HashMap<&str, Vec<&Arc<LiveShare>>> = HashMap::new();
        for old in before {
            known.entry(&old.app).or_default().push(old);
        }
        for route in &table.routes {
            let olds = known.get(route.app.as_str());
            let route = Arc::new(LiveRoute::new(route, olds.map_or(&[], Vec::as_slice)));
            for host in &route.hosts {
                let host = host.to_ascii_lowercase();
                // Beside its own, every host that no app names.
                if host.is_empty() {
                    live.any.push(route.clone());
                    continue;
                }
                match host.strip_prefix("*.") {
                    Some(rest) => live.wildcard.entry(rest.into()).or_default(),
                    None => live.exact.entry(host).or_default(),
                }
                .push(route.clone());
            }
            if route.hosts.is_empty() {
                live.any.push(route.clone());
            }
            live.routes.push(route);
        }
        let all = live.exact.values_mut().chain(live.wildcard.values_mut());
        for routes in all.chain([&mut live.any]) {
            // Where two routes claim the same prefix, the newer one wins.
            routes.sort_by_key(|route| Reverse((route.path_prefix.len(), route.generation)));
        }
        live.table = Arc::new(table);
        live
    }

    /// The shares of every route, and those that are warm.
    pub fn shares(&self) -> impl Iterator<Item = &Arc<LiveShare>> {
        let routes = self.routes.iter();
        routes.flat_map(|route| route.shares.iter().chain(&route.warm))
    }

    /// Whether a route of `app` is still served as it was before generation `before`.
    pub fn has_older(&self, app: &str, before: u64) -> bool {
        let older = |route: &Arc<LiveRoute>| route.app == app && route.generation < before;
        self.routes.iter().any(older)
    }

    pub fn find(&self, host: &str, path: &str) -> Result<&LiveRoute, NoRoute> {
        let routes = self.of_host(host).ok_or(NoRoute::UnknownHost)?;
        let found = routes
            .iter()
            .find(|route| below(path, &route.path_prefix).is_some());
        found.map(Arc::as_ref).ok_or(NoRoute::UnknownPath)
    }

    fn of_host(&self, host: &str) -> Option<&Vec<Arc<LiveRoute>>> {
        let lower;
        let mut host = without_port(host);
        if host.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            host = &lower;
        }
        if let Some(routes) = self.exact.get(host) {
            return Some(routes);
        }
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.').filter(|_| !self.wildcard.is_empty()) {
            if let Some(routes) = self.wildcard.get(parent) {
                return Some(routes);
            }
            rest = parent;
        }
        (!self.any.is_empty()).then_some(&self.any)
    }
}

/// A route as it is served.
pub struct LiveRoute {
    pub app: String,
    pub generation: u64,
    pub hosts: Vec<String>,
    pub path_prefix: String,
    /// At least one.
    shares: Vec<Arc<LiveShare>>,
    /// Gets what none of them takes.
    warm: Option<Arc<LiveShare>>,
    /// Whether none of the shares has a target.
    is_down: bool,
    /// Where each share's part of a round ends; empty if there is only one share.
    ends: Vec<u64>,
    /// The distance between two consecutive turns in a round, so that a share's turns are spread over
    /// it. It has no common divisor with the round's length, so that each place is visited once.
    stride: u64,
    turn: AtomicU64,
}

impl LiveRoute {
    fn new(route: &Route, olds: &[&Arc<LiveShare>]) -> Self {
        let live = |share, is_warm| {
            let same = olds.iter().find(|old| old.is_of(route, share, is_warm));
            match same {
                Some(old) => Arc::clone(old),
                None => Arc::new(LiveShare::new(route, share, is_warm)),
            }
        };
        let warm = route.warm.as_ref().filter(|it| !it.targets.is_empty());
        let serves = route.shares.iter().any(|share| !share.targets.is_empty());
        let mut round = 0;
        let ends = route.shares.iter().map(|share| {
            // A share that is down gets nothing as long as another one is up.
            if !serves || !share.targets.is_empty() {
                round += u64::from(share.weight);
            }
            round
        });
        let ends: Vec<u64> = match route.shares.len() {
            1 => Vec::new(),
            _ => ends.collect(),
        };
        Self {
            app: route.app.clone(),
            generation: route.generation,
            hosts: route.hosts.clone(),
            path_prefix: route.path_prefix.clone(),
            shares: route.shares.iter().map(|it| live(it, false)).collect(),
            warm: warm.map(|it| live(it, true)),
            is_down: !serves,
            ends,
            stride: stride(round),
            turn: AtomicU64::new(0),
        }
    }

    /// The share that the next request goes to: each gets the part of all requests that its weight
    /// says.
    pub fn next_share(&self) -> &Arc<LiveShare> {
        if let (true, Some(warm)) = (self.is_down, &self.warm) {
            return warm;
        }
        match &self.shares[..] {
            [only] => only,
            shares => &shares[self.next_place()],
        }
    }

    /// One of its shares, without taking a turn.
    pub fn first_share(&self) -> &Arc<LiveShare> {
        &self.shares[0]
    }

    /// The release before, while it is warm.
    pub fn warm(&self) -> Option<&Arc<LiveShare>> {
        self.warm.as_ref()
    }

    /// A share that has targets and whose id is not in `ids`; the warm one if there is no other.
    pub fn other_share(&self, ids: &[u64]) -> Option<&Arc<LiveShare>> {
        let mut shares = self.shares.iter().chain(&self.warm);
        shares.find(|share| !ids.contains(&share.id) && !share.targets.is_empty())
    }

    fn next_place(&self) -> usize {
        let round = *self.ends.last().unwrap_or(&0);
        if round == 0 {
            return 0;
        }
        let turn = u128::from(self.turn.fetch_add(1, Relaxed) % round);
        let at = turn * u128::from(self.stride) % u128::from(round);
        self.ends.partition_point(|&end| u128::from(end) <= at)
    }
}

/// The golden section of `round`, or the next larger number that has no common divisor with it.
fn stride(round: u64) -> u64 {
    let section = (round as f64 * 0.618) as u64;
    let apart = |n: &u64| gcd(*n, round) == 1;
    (section.max(1)..).find(apart).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        b => gcd(b, a % b),
    }
}

/// The host's name, without a port and without a trailing dot.
pub fn without_port(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::super::table::Share;
    use super::super::table::tests::route;
    use super::*;

    fn find(live: &LiveTable, host: &str, path: &str) -> Result<String, NoRoute> {
        live.find(host, path).map(|route| route.app.clone())
    }

    #[test]
    fn the_most_specific_host_and_the_longest_prefix_win() {
        let routes = vec![
            route("site", &["example.com"], "/", 1),
            route("api", &["example.com"], "/api/", 1),
            route("wild", &["*.example.com"], "/", 1),
            route("deep", &["*.b.example.com"], "/", 1),
            route("rest", &[], "/", 1),
        ];
        let table = Table::new(1, routes);
        let live = LiveTable::build(table, &[]);
        for (host, path, app) in [
            ("example.com", "/", "site"),
            ("EXAMPLE.com.:8080", "/apis", "site"),
            ("example.com", "/api", "api"),
            ("example.com", "/api/x", "api"),
            ("example.com", "/api?x", "api"),
            ("a.example.com", "/", "wild"),
            ("x.a.example.com", "/", "wild"),
            ("a.b.example.com", "/", "deep"),
            ("other.org", "/", "rest"),
            ("[::1]:80", "/", "rest"),
            ("", "*", "rest"),
        ] {
            assert_eq!(find(&live, host, path).as_deref(), Ok(app), "{host}{path}");
        }
    }

    #[test]
    fn what_nobody_claims_is_unknown() {
        let table = Table::new(1, vec![route("a", &["a.org"], "/a", 1)]);
        let live = LiveTable::build(table, &[]);
        assert_eq!(find(&live, "b.org", "/"), Err(NoRoute::UnknownHost));
        assert_eq!(find(&live, "a.org", "/b"), Err(NoRoute::UnknownPath));
    }

    /// A route with shares `(release, weight, whether it is up)`.
    fn shared(generation: u64, shares: &[(&str, u32, bool)]) -> Route {
        let address = "127.0.0.1:1".parse().unwrap();
        let share = |&(release, weight, up): &(&str, u32, bool)| Share {
            weight,
            ..Share::whole(release, 1, if up { vec![address] } else { vec![] })
        };
        Route {
            shares: shares.iter().map(share).collect(),
            ..route("a", &[], "/", generation)
        }
    }

    /// The releases that the next requests go to.
    fn turns(shares: &[(&str, u32, bool)], requests: usize) -> Vec<String> {
        let live = LiveTable::build(Table::new(1, vec![shared(1, shares)]), &[]);
        let route = live.find("", "/").unwrap();
        let release = |_| route.next_share().release.clone();
        (0..requests).map(release).collect()
    }

    #[test]
    fn each_share_gets_its_weight_spread_over_the_round() {
        let turns = turns(&[("old", 90, true), ("new", 10, true)], 300);
        let new = |turn: &&String| *turn == "new";
        for round in turns.chunks(100) {
            assert_eq!(round.iter().filter(new).count(), 10);
        }
        // Neither share's turns are bunched: checked for any thirty requests in a row.
        for window in turns.windows(30) {
            let count = window.iter().filter(new).count();
            assert!((1..=5).contains(&count), "{window:?}");
        }
    }

    #[test]
    fn a_share_without_weight_or_targets_gets_nothing() {
        let all = |release: &str, shares| turns(shares, 50).iter().all(|turn| turn == release);
        assert!(all("old", &[("old", 90, true), ("new", 10, false)]));
        assert!(all("new", &[("old", 0, true), ("new", 3, true)]));
        assert!(all("old", &[("old", 0, true), ("new", 0, true)]));
        let huge = u32::MAX;
        let thirds = turns(
            &[("a", huge, true), ("b", huge, true), ("c", huge, true)],
            30,
        );
        let a = thirds.iter().filter(|turn| *turn == "a").count();
        assert!((8..=12).contains(&a), "{a}");
    }

    #[test]
    fn what_is_warm_gets_what_nothing_else_takes_and_is_another_object_than_the_old_share() {
        let watched = |generation, up, warm: bool| {
            let old = Share::whole("old", 1, vec!["127.0.0.1:1".parse().unwrap()]);
            Route {
                warm: warm.then_some(old),
                ..shared(generation, &[("new", 100, up)])
            }
        };
        let build = |route: Route, before: &LiveTable| {
            let before: Vec<_> = before.shares().cloned().collect();
            LiveTable::build(Table::new(route.generation, vec![route]), &before)
        };
        let old = build(shared(1, &[("old", 100, true)]), &LiveTable::default());
        let old_id = old.shares().next().unwrap().id;
        let live = build(watched(2, true, true), &old);
        assert!(live.shares().all(|share| share.id != old_id), "it drains");
        let route = live.find("", "/").unwrap();
        let (next, warm) = (route.next_share(), route.warm().unwrap());
        assert_eq!((&*next.release, &*warm.release), ("new", "old"));
        assert_eq!(route.other_share(&[next.id]).unwrap().id, warm.id);
        assert!(route.other_share(&[next.id, warm.id]).is_none());

        let down = build(watched(3, false, true), &live);
        let route = down.find("", "/").unwrap();
        assert_eq!(route.next_share().id, warm.id, "and it keeps its object");
        let over = build(watched(4, false, false), &down);
        assert_eq!(over.find("", "/").unwrap().next_share().release, "new");
    }

    #[test]
    fn a_share_keeps_its_object_while_weights_change() {
        let build = |generation, shares: &[_], before: &LiveTable| {
            let before: Vec<_> = before.shares().cloned().collect();
            let ids = |live: &LiveTable| live.shares().map(|share| share.id).collect::<Vec<_>>();
            let live = LiveTable::build(
                Table::new(generation, vec![shared(generation, shares)]),
                &before,
            );
            let found = ids(&live);
            (live, found)
        };
        let (live, alone) = build(1, &[("old", 100, true)], &LiveTable::default());
        let (live, both) = build(2, &[("old", 90, true), ("new", 10, true)], &live);
        assert_eq!(both[0], alone[0]);
        let (live, swapped) = build(3, &[("old", 10, true), ("new", 90, true)], &live);
        assert_eq!(swapped, both);
        let (_, new) = build(4, &[("new", 100, true)], &live);
        assert_eq!(new, [both[1]]);
    }
}
