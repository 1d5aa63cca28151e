//! Each app's requests of the last hour and the last day, from the proxy's counters: for people who look,
//! kept in memory only.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

use super::counters::Counters;
use crate::proxy::control::RouteStats;

/// A series of points: the time that one stands for, and how long they are kept, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub step: i64,
    pub kept: i64,
}

pub const HOUR: Span = Span {
    step: 10_000,
    kept: 3_600_000,
};
pub const DAY: Span = Span {
    step: 300_000,
    kept: 24 * 3_600_000,
};
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
    counters: Counters,
    /// When the first look was.
    began: Option<i64>,
    apps: BTreeMap<String, App>,
}

#[derive(Default)]
struct App {
    hour: VecDeque<Point>,
    day: VecDeque<Point>,
    /// What will be the day's next point, and when it began.
    part: Option<(i64, Risen)>,
    /// The durations of the last minute's points.
    recent: VecDeque<(i64, Durations)>,
}

/// How many requests took at most as many microseconds, and more than the bound before.
type Durations = Vec<(u64, u64)>;

impl Traffic {
    /// Since when requests are counted, in milliseconds since 1970.
    pub fn began(&self) -> Option<i64> {
        self.0.lock().began
    }

    /// Adds what the counters have risen by since the last look. Apps that are `stopped`, and those
    /// without a release, answer 503 on purpose: that is no failure.
    pub fn take(&self, stats: Vec<RouteStats>, stopped: &HashSet<String>, now: i64) {
        let mut all = self.0.lock();
        let all_risen = all.counters.risen(stats);
        // What came before the first look may have been long ago.
        if all.began.is_none() {
            all.began = Some(now);
            return;
        }
        let mut risen: BTreeMap<String, Risen> = BTreeMap::new();
        for ((app, release, _), more) in all_risen {
            let counts = !release.is_empty() && !stopped.contains(&app);
            risen.entry(app).or_default().count(&more, counts);
        }
        for (app, risen) in risen.into_iter().filter(|(_, it)| it.requests > 0) {
            let app = all.apps.entry(app).or_default();
            app.hour.push_back(risen.point(now));
            let (_, part) = app.part.get_or_insert((now - HOUR.step, Risen::default()));
            part.add(&risen);
            app.recent.push_back((now, risen.durations));
        }
        for app in all.apps.values_mut() {
            if let Some((_, part)) = app.part.take_if(|(begun, _)| now - *begun >= DAY.step) {
                app.day.push_back(part.point(now));
            }
            for (points, span) in [(&mut app.hour, HOUR), (&mut app.day, DAY)] {
                while points.front().is_some_and(|it| it.at < now - span.kept) {
                    points.pop_front();
                }
            }
            while app
                .recent
                .front()
                .is_some_and(|(at, _)| *at <= now - MINUTE)
            {
                app.recent.pop_front();
            }
        }
        let is_used = |app: &App| !app.hour.is_empty() || !app.day.is_empty();
        all.apps.retain(|_, app| is_used(app));
    }

    /// The last hour of an app, oldest first.
    pub fn hour(&self, app: &str) -> Vec<Point> {
        let all = self.0.lock();
        let app = all.apps.get(app);
        app.map_or(Vec::new(), |app| app.hour.iter().copied().collect())
    }

    /// The last day of an app, oldest first; the last point is of the part that is not over.
    pub fn day(&self, app: &str, now: i64) -> Vec<Point> {
        let all = self.0.lock();
        let Some(app) = all.apps.get(app) else {
            return Vec::new();
        };
        let part = app.part.as_ref().map(|(_, part)| part.point(now));
        app.day.iter().copied().chain(part).collect()
    }

    /// The last minute of an app; `None` if it had no requests in the last hour.
    pub fn minute(&self, app: &str, now: i64) -> Option<Minute> {
        let all = self.0.lock();
        let app = all.apps.get(app).filter(|app| !app.hour.is_empty())?;
        let mut minute = Minute::default();
        for point in app.hour.iter().rev().take_while(|it| it.at > now - MINUTE) {
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
    fn point(&self, at: i64) -> Point {
        Point {
            at,
            requests: self.requests,
            failed: self.failed,
            p50: quantile(&self.durations, 0.5),
            p99: quantile(&self.durations, 0.99),
        }
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        add(&mut self.durations, &other.durations);
    }

    fn count(&mut self, more: &RouteStats, failures: bool) {
        self.requests += more.requests;
        if failures {
            // A failure after the head of the answer has another status than 5xx; one before it is in both.
            self.failed += more.by_class[4].max(more.failures.total());
        }
        add(&mut self.durations, &more.latency_us);
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
            long_requests: 0,
            latency_us: vec![(1000, requests - failed), (2000, failed), (u64::MAX, 0)],
            latency_sum_us: 0,
        }
    }

    #[test]
    fn only_what_came_since_the_last_look_counts() {
        let (traffic, none) = (Traffic::default(), HashSet::new());
        traffic.take(vec![route("r1", 1000, 500)], &none, 0);
        assert_eq!(traffic.hour("hello"), []);
        // A new release begins at 0, and so does a proxy that was restarted.
        traffic.take(
            vec![route("r1", 1010, 500), route("r2", 90, 10)],
            &none,
            10_000,
        );
        traffic.take(vec![route("r2", 5, 0)], &none, 20_000);
        traffic.take(vec![route("r2", 5, 0)], &none, 30_000);
        let points = traffic.hour("hello");
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
        traffic.take(vec![], &none, 20_000 + HOUR.kept + 1);
        assert_eq!(traffic.hour("hello"), []);
    }

    #[test]
    fn an_hour_is_all_that_is_kept_of_what_is_fine() {
        let (traffic, none) = (Traffic::default(), HashSet::new());
        for step in 0..1000 {
            traffic.take(vec![route("r1", step, 0)], &none, step as i64 * 10_000);
        }
        assert_eq!(traffic.hour("hello").len(), 361);
        let day = traffic.day("hello", 9_990_000);
        assert_eq!(day.len(), 34);
        assert_eq!(day.iter().map(|it| it.requests).sum::<u64>(), 999);
        assert!(traffic.0.lock().apps["hello"].recent.len() <= 6);
    }

    #[test]
    fn what_is_not_meant_to_serve_does_not_fail() {
        let (traffic, none) = (Traffic::default(), HashSet::new());
        let stopped = HashSet::from(["hello".to_owned()]);
        traffic.take(vec![], &none, 0);
        traffic.take(vec![route("", 5, 5)], &none, 10_000);
        traffic.take(vec![route("", 5, 5), route("r1", 7, 7)], &stopped, 20_000);
        traffic.take(vec![route("", 5, 5), route("r1", 9, 9)], &none, 30_000);
        let hour = traffic.hour("hello");
        let counts: Vec<_> = hour.iter().map(|it| (it.requests, it.failed)).collect();
        assert_eq!(counts, [(5, 0), (7, 0), (2, 2)]);
    }
}
