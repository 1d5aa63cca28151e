//! The results of a load.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Kind;

/// What all workers together have seen.
#[derive(Debug, Default)]
pub struct Report {
    pub kinds: BTreeMap<Kind, Tally>,
    /// Every request that failed.
    pub failures: Vec<Failure>,
    /// The versions that answered, in the order of their first response, and how often each did.
    pub versions: Vec<(String, u64)>,
    /// The bodies of all POSTs that were answered correctly.
    pub posted: Vec<String>,
}

/// The count and the times of one kind.
#[derive(Debug, Default)]
pub struct Tally {
    pub requests: u64,
    pub failed: u64,
    pub slowest: Duration,
}

/// A request that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    pub kind: Kind,
    /// The time since the load began.
    pub at: Duration,
    pub cause: String,
}

impl Report {
    /// The number of requests that have ended.
    pub fn requests(&self) -> u64 {
        self.kinds.values().map(|tally| tally.requests).sum()
    }

    pub(super) fn ended(&mut self, kind: Kind, took: Duration) -> &mut Tally {
        let tally = self.kinds.entry(kind).or_default();
        tally.requests += 1;
        tally.slowest = tally.slowest.max(took);
        tally
    }

    pub(super) fn answered_by(&mut self, version: &str) {
        match self.versions.iter_mut().find(|(seen, _)| seen == version) {
            Some((_, count)) => *count += 1,
            None => self.versions.push((version.to_owned(), 1)),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, tally) in &self.kinds {
            writeln!(
                f,
                "{:<20} {:>7} requests, {} failed, slowest {} ms",
                kind.name(),
                tally.requests,
                tally.failed,
                tally.slowest.as_millis()
            )?;
        }
        for failure in &self.failures {
            let at = failure.at.as_secs_f64();
            writeln!(
                f,
                "at {at:.3} s: {}: {}",
                failure.kind.name(),
                failure.cause
            )?;
        }
        Ok(())
    }
}
