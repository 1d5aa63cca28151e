//! What one share has done. Plain atomics: a reader may see a request counted in one number and not yet
//! in another.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::stats::Failures;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The app's whole response was read, whatever its status.
    Answered,
    Connect,
    Timeout,
    Closed,
    Malformed,
    /// The header of the app's response was too long.
    LongHead,
    /// Cut off at the drain's deadline.
    Drained,
    /// The client went away, or violated the protocol.
    Client,
    /// The app's owner has visitors turned away: 503, which is nobody's failure.
    Maintenance,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Malformed => "malformed",
            Self::LongHead => "long_header",
            Self::Drained => "drained",
            Self::Client => "client",
            Self::Maintenance => "maintenance",
        }
    }
}

const OUTCOMES: usize = 9;
/// Powers of two, in microseconds: the last bound but one is 2^26 us, about a minute.
const BUCKETS: usize = 28;

#[derive(Default)]
pub struct Counters {
    outcomes: [AtomicU64; OUTCOMES],
    classes: [AtomicU64; 5],
    latency: [AtomicU64; BUCKETS],
    latency_sum_us: AtomicU64,
    pub retried: AtomicU64,
    pub rescued: AtomicU64,
    pub websockets_closed: AtomicU64,
    /// Requests that were refused because their head is too long.
    pub long_requests: AtomicU64,
}

/// The counters that a receipt is made of, at one moment.
#[derive(Clone, Copy, Default, Debug)]
pub struct Snapshot {
    pub requests: u64,
    pub failed: u64,
    pub retried: u64,
    pub rescued: u64,
    pub websockets_closed: u64,
}

impl Counters {
    /// `status` 0: the client was sent none.
    pub fn count(&self, outcome: Outcome, status: u16, took: Duration) {
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
        let class = (status / 100).wrapping_sub(1) as usize;
        if let Some(class) = self.classes.get(class)
            && outcome != Outcome::Maintenance
        {
            class.fetch_add(1, Relaxed);
        }
        self.latency[bucket(took)].fetch_add(1, Relaxed);
        let us = took.as_micros() as u64;
        self.latency_sum_us.fetch_add(us, Relaxed);
    }

    pub fn failures(&self) -> Failures {
        let of = |outcome: Outcome| self.outcomes[outcome as usize].load(Relaxed);
        Failures {
            connect: of(Outcome::Connect),
            timeout: of(Outcome::Timeout),
            closed: of(Outcome::Closed),
            malformed: of(Outcome::Malformed),
            long_header: of(Outcome::LongHead),
            drained: of(Outcome::Drained),
            client: of(Outcome::Client),
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            requests: self.outcomes.iter().map(|n| n.load(Relaxed)).sum(),
            failed: self.failures().total(),
            retried: self.retried.load(Relaxed),
            rescued: self.rescued.load(Relaxed),
            websockets_closed: self.websockets_closed.load(Relaxed),
        }
    }

    pub fn by_class(&self) -> [u64; 5] {
        self.classes.each_ref().map(|n| n.load(Relaxed))
    }

    pub fn latency_sum_us(&self) -> u64 {
        self.latency_sum_us.load(Relaxed)
    }

    pub fn latency_us(&self) -> Vec<(u64, u64)> {
        let bound = |bucket| match bucket {
            0..27 => 1 << bucket,
            _ => u64::MAX,
        };
        let counts = self.latency.iter().enumerate();
        counts.map(|(i, n)| (bound(i), n.load(Relaxed))).collect()
    }
}

fn bucket(took: Duration) -> usize {
    let us = took.as_micros().clamp(1, 1 << 40) as u64;
    (us.next_power_of_two().trailing_zeros() as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_at_most_its_bound() {
        let at = |us| bucket(Duration::from_micros(us));
        assert_eq!([at(0), at(1), at(2), at(3), at(4)], [0, 0, 1, 2, 2]);
        assert_eq!(at(1 << 26), 26);
        assert_eq!(at((1 << 26) + 1), 27);
        assert_eq!(bucket(Duration::MAX), 27);
    }
}
