//! Each app's requests of the last hour, from the proxy's counters: for people who look, kept in memory
//! only.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

use crate::proxy::control::RouteStats;

/// The time that one point stands for.
pub const STEP: Duration = Duration::from_secs(10);
/// How long points are kept, in milliseconds.
pub const KEPT: i64 = 3_600_000;
/// What counts as now, in milliseconds.
const MINUTE: i64 = 60_000;

/// The requests of one step. Steps without any have no point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When the step ended, in milliseconds since 1970.
    pub at: i64,
    pub requests: u64,
    /// Answered with 5xx, or not answered completely because of the app.
    pub failed: u64,
    pub p50: Duration,
    pub p99: Duration,
}

/// The last minute.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Minute {
    pub requests: u64,
    pub failed: u64,
    pub p99: Duration,
}

/// The requests of all apps.
#[derive(Default)]
pub struct Traffic(Mutex<All>);

#[derive(Default)]
struct All {
    /// The counters at the last look, by app, release and generation. `None` before the first one.
    before: Option<HashMap<Key, RouteStats>>,
    apps: BTreeMap<String, App>,
}

type Key = (String, String, u64);

#[derive(Default)]
struct App {
    points: VecDeque<Point>,
    /// The durations of the last minute's points.
    recent: VecDeque<(i64, Durations)>,
}

/// How many requests took at most as many microseconds, and more than the bound before.
type Durations = Vec<(u64, u64)>;

impl Traffic {
    /// Adds what the counters have risen by since the last look.
    pub fn take(&self, stats: Vec<RouteStats>, now: i64) {
        let mut all = self.0.lock();
        let mut after: HashMap<Key, RouteStats> = HashMap::new();
        for route in stats {
            let key = (route.app.clone(), route.release.clone(), route.generation);
            match after.get_mut(&key) {
                Some(same) => same.add(&route),
                None => drop(after.insert(key, route)),
            }
        }
        let before = all.before.replace(after.clone());
        // What came before the first look may have been long ago.
        let Some(before) = before else {
            return;
        };
        let mut risen: BTreeMap<String, Risen> = BTreeMap::new();
        for (key, route) in after {
            // A proxy that was restarted counts from 0.
            let old = before
                .get(&key)
                .filter(|old| old.requests <= route.requests);
            risen.entry(key.0).or_default().add(&route, old);
        }
        for (app, risen) in risen.into_iter().filter(|(_, it)| it.requests > 0) {
            let app = all.apps.entry(app).or_default();
            app.points.push_back(Point {
                at: now,
                requests: risen.requests,
                failed: risen.failed,
                p50: quantile(&risen.durations, 0.5),
                p99: quantile(&risen.durations, 0.99),
            });
            app.recent.push_back((now, risen.durations));
        }
        for app in all.apps.values_mut() {
            while app
                .points
                .front()
                .is_some_and(|first| first.at < now - KEPT)
            {
                app.points.pop_front();
            }
            while app
                .recent
                .front()
                .is_some_and(|(at, _)| *at <= now - MINUTE)
            {
                app.recent.pop_front();
            }
        }
        all.apps.retain(|_, app| !app.points.is_empty());
    }

    /// The last hour of an app, oldest first.
    pub fn points(&self, app: &str) -> Vec<Point> {
        let all = self.0.lock();
        all.apps
            .get(app)
            .map_or(Vec::new(), |app| app.points.iter().copied().collect())
    }

    /// The last minute of an app; `None` if it had no requests in the last hour.
    pub fn minute(&self, app: &str, now: i64) -> Option<Minute> {
        let all = self.0.lock();
        let app = all.apps.get(app)?;
        let mut minute = Minute::default();
        for point in app
            .points
            .iter()
            .rev()
            .take_while(|it| it.at > now - MINUTE)
        {
            minute.requests += point.requests;
            minute.failed += point.failed;
        }
        let mut durations = Durations::new();
        for (_, more) in app.recent.iter().filter(|(at, _)| *at > now - MINUTE) {
            add(&mut durations, more);
        }
        minute.p99 = quantile(&durations, 0.99);
        Some(minute)
    }
}

/// What an app's counters have risen by.
#[derive(Default)]
struct Risen {
    requests: u64,
    failed: u64,
    durations: Durations,
}

impl Risen {
    fn add(&mut self, route: &RouteStats, old: Option<&RouteStats>) {
        // A failure after the head of the answer has another status than 5xx; one before it is in both.
        let failed = |route: &RouteStats| route.by_class[4].max(route.failures.total());
        self.requests += route.requests - old.map_or(0, |old| old.requests);
        self.failed += failed(route).saturating_sub(old.map_or(0, failed));
        let durations = route
            .latency_us
            .iter()
            .enumerate()
            .map(|(at, (bound, count))| {
                let before = old.and_then(|old| old.latency_us.get(at));
                (
                    *bound,
                    count.saturating_sub(before.map_or(0, |(_, count)| *count)),
                )
            });
        add(&mut self.durations, &durations.collect());
    }
}

fn add(all: &mut Durations, more: &Durations) {
    if all.len() < more.len() {
        all.resize(more.len(), (0, 0));
    }
    for (one, (bound, count)) in all.iter_mut().zip(more) {
        *one = (*bound, one.1 + count);
    }
}

/// The time within which this part of the requests was answered, as near as the bounds allow.
fn quantile(durations: &Durations, part: f64) -> Duration {
    let total: u64 = durations.iter().map(|(_, count)| count).sum();
    let wanted = total as f64 * part;
    let (mut below, mut lower) = (0.0, 0.0);
    for (bound, count) in durations {
        // The last bound is none.
        let bound = if *bound == u64::MAX {
            lower * 2.0
        } else {
            *bound as f64
        };
        let count = *count as f64;
        if count > 0.0 && below + count >= wanted {
            let us = lower + (bound - lower) * (wanted - below) / count;
            return Duration::from_micros(us as u64);
        }
        below += count;
        lower = bound;
    }
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::control::{Failures, State};

    fn route(release: &str, requests: u64, failed: u64) -> RouteStats {
        RouteStats {
            app: "hello".into(),
            release: release.into(),
            generation: 1,
            state: State::Serving,
            requests,
            by_class: [0, requests - failed, 0, 0, failed],
            failures: Failures::default(),
            retried: 0,
            rescued: 0,
            in_flight: 0,
            websockets: 0,
            websockets_closed: 0,
            latency_us: vec![(1000, requests - failed), (2000, failed), (u64::MAX, 0)],
            latency_sum_us: 0,
        }
    }

    #[test]
    fn only_what_came_since_the_last_look_counts() {
        let traffic = Traffic::default();
        traffic.take(vec![route("r1", 1000, 500)], 0);
        assert_eq!(traffic.points("hello"), []);
        // A new release begins at 0, and so does a proxy that was restarted.
        traffic.take(vec![route("r1", 1010, 500), route("r2", 90, 10)], 10_000);
        traffic.take(vec![route("r2", 5, 0)], 20_000);
        traffic.take(vec![route("r2", 5, 0)], 30_000);
        let points = traffic.points("hello");
        let counts: Vec<_> = points
            .iter()
            .map(|it| (it.at, it.requests, it.failed))
            .collect();
        assert_eq!(counts, [(10_000, 100, 10), (20_000, 5, 0)]);
        let ms = |time: Duration| time.as_micros();
        assert_eq!((ms(points[0].p50), ms(points[0].p99)), (555, 1900));
        let minute = traffic.minute("hello", 30_000).unwrap();
        assert_eq!((minute.requests, minute.failed), (105, 10));
        assert_eq!(traffic.minute("hello", 100_000).unwrap().requests, 0);
        assert_eq!(traffic.minute("other", 0), None);
        traffic.take(vec![], 20_000 + KEPT + 1);
        assert_eq!(traffic.points("hello"), []);
    }

    #[test]
    fn an_hour_is_all_that_is_kept() {
        let traffic = Traffic::default();
        for step in 0..1000 {
            traffic.take(vec![route("r1", step, 0)], step as i64 * 10_000);
        }
        assert_eq!(traffic.points("hello").len(), 361);
        assert!(traffic.0.lock().apps["hello"].recent.len() <= 6);
    }
}
