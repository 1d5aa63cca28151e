//! Builds get the processors that nobody else wants: the kernel's `cpu.idle` of their control group, with which
//! whoever wakes up goes before them at once. Beside an app that never sleeps they would hardly end, so that
//! builds which starve get a small share instead.

use std::convert::Infallible;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::build_limits::Group;

/// How long builds are watched before they are said to starve.
const WINDOW: Duration = Duration::from_secs(10);
/// Of one processor: builds that get less beside a busy machine starve.
const LEAST: f64 = 0.1;
/// Of all processors: a machine that leaves less unused is busy.
const UNUSED: f64 = 0.02;

/// Keeps builds behind everybody else while one of them runs, unless they starve. Never returns. A kernel before 5.15
/// has no such rank: there they keep their share.
pub(super) async fn keep(group: Group, running: Arc<AtomicUsize>) -> Infallible {
    let _running = Running::new(&group, running);
    // Not in another thread, which might do it after the build has ended.
    let is_last = group.be_last().is_ok();
    let mut before = now(&group).await.filter(|_| is_last);
    while let Some(earlier) = before {
        tokio::time::sleep(WINDOW).await;
        before = now(&group).await;
        let starve = (before.as_ref()).is_some_and(|later| later.starved_since(&earlier));
        // The next build to begin makes all of them the last again.
        if starve && group.is_last() {
            tracing::info!(
                "builds starve beside what is live: they now get a small share of the processors"
            );
            let _ = group.share();
        }
    }
    std::future::pending().await
}

/// A build that runs.
struct Running<'a> {
    group: &'a Group,
    all: Arc<AtomicUsize>,
}

impl<'a> Running<'a> {
    fn new(group: &'a Group, all: Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::SeqCst);
        Self { group, all }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // Nobody watches any more what others build in the group.
        if self.all.fetch_sub(1, Ordering::SeqCst) == 1 {
            let _ = self.group.share();
        }
    }
}

async fn now(group: &Group) -> Option<Reading> {
    let group = group.clone();
    let reading = tokio::task::spawn_blocking(move || Reading::of(&group));
    reading.await.ok()?
}

struct Reading {
    at: Instant,
    /// How long processors have worked for builds.
    builds: Duration,
    /// How long all processors have worked, and waited for work, in the kernel's ticks.
    all: u64,
    unused: u64,
}

impl Reading {
    fn of(group: &Group) -> Option<Self> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let (all, unused) = ticks(&stat)?;
        Some(Self {
            at: Instant::now(),
            builds: group.used()?,
            all,
            unused,
        })
    }

    fn starved_since(&self, before: &Self) -> bool {
        let window = self.at - before.at;
        let builds = self.builds.saturating_sub(before.builds);
        let all = self.all.saturating_sub(before.all);
        let unused = self.unused.saturating_sub(before.unused);
        builds < window.mul_f64(LEAST) && (unused as f64) < all as f64 * UNUSED
    }
}

/// All, and those without work, of all processors: the first line of `/proc/stat`.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let numbers = stat
        .lines()
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace();
    // user nice system idle iowait irq softirq steal; the rest is part of user and nice.
    let numbers: Vec<u64> = numbers
        .take(8)
        .map(|it| it.parse().ok())
        .collect::<Option<_>>()?;
    Some((numbers.iter().sum(), numbers.get(3)? + numbers.get(4)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_starve_that_get_next_to_nothing_of_a_busy_machine() {
        let at = Instant::now();
        let (all, unused) = ticks("cpu  70 0 20 8 2 0 0 0 9 9\ncpu0 1 1").unwrap();
        assert_eq!((all, unused), (100, 10));
        let before = Reading {
            at,
            builds: Duration::ZERO,
            all,
            unused,
        };
        let starved = |builds: u64, unused: u64| {
            let after = Reading {
                at: at + WINDOW,
                builds: Duration::from_millis(builds),
                all: all + 2000,
                unused: before.unused + unused,
            };
            after.starved_since(&before)
        };
        assert!(starved(40, 0));
        assert!(!starved(4_000, 0), "it gets on");
        assert!(!starved(40, 1_000), "it waits for something else");
    }
}
