//! What the proxy has counted for each app, over all its releases, for the metrics: it does not fall when a
//! release goes, and no switch adds a series.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::counters::Counters;
use crate::proxy::control::RouteStats;

#[derive(Default)]
pub struct Totals(Mutex<All>);

#[derive(Default)]
struct All {
    counters: Counters,
    apps: BTreeMap<String, RouteStats>,
}

impl Totals {
    /// Adds what the counters have risen by since the last look, and returns the sums of each app that has
    /// a route.
    pub fn take(&self, stats: Vec<RouteStats>) -> BTreeMap<String, RouteStats> {
        let mut all = self.0.lock();
        let risen = all.counters.risen(stats);
        for total in all.apps.values_mut() {
            (total.in_flight, total.websockets) = (0, 0);
        }
        for ((app, ..), risen) in &risen {
            match all.apps.get_mut(app) {
                Some(total) => total.add(risen),
                None => drop(all.apps.insert(app.clone(), risen.clone())),
            }
        }
        all.apps
            .retain(|app, _| risen.keys().any(|(of, ..)| of == app));
        all.apps.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::control::{Failures, State};

    fn route(release: &str, requests: u64) -> RouteStats {
        RouteStats {
            app: "hello".into(),
            release: release.into(),
            generation: 1,
            state: State::Serving,
            requests,
            by_class: [0, requests, 0, 0, 0],
            failures: Failures::default(),
            retried: 0,
            rescued: 0,
            in_flight: 3,
            websockets: 1,
            websockets_closed: 0,
            long_requests: 0,
            latency_us: vec![(1000, requests), (u64::MAX, 0)],
            latency_sum_us: 10 * requests,
        }
    }

    #[test]
    fn a_sum_does_not_fall_when_a_release_goes() {
        let totals = Totals::default();
        let of = |stats| {
            let app = totals.take(stats).remove("hello").unwrap();
            (
                app.requests,
                app.by_class[1],
                app.latency_us[0].1,
                app.latency_sum_us,
                app.in_flight,
            )
        };
        assert_eq!(of(vec![route("r1", 5)]), (5, 5, 5, 50, 3));
        assert_eq!(of(vec![route("r1", 7), route("r2", 1)]), (8, 8, 8, 80, 6));
        assert_eq!(of(vec![route("r2", 4)]), (11, 11, 11, 110, 3));
        // A proxy that was restarted counts from 0.
        assert_eq!(of(vec![route("r2", 2)]), (13, 13, 13, 130, 3));
        assert!(totals.take(vec![]).is_empty());
    }
}
