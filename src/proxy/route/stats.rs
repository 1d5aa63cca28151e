//! The counters of a share, as the agent reads them.

use serde::{Deserialize, Serialize};

/// The state of a share.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Serving,
    /// It gets no new requests; some are still in progress.
    Draining,
    Drained,
}

/// The counters of one share since its first request. If its route's settings change, a new object
/// begins with its own counters.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct RouteStats {
    pub app: String,
    pub release: String,
    pub generation: u64,
    pub state: State,
    /// Requests that have ended, in any way.
    pub requests: u64,
    /// By the status sent to the client: `[1xx, 2xx, 3xx, 4xx, 5xx]`.
    pub by_class: [u64; 5],
    pub failures: Failures,
    /// How often a request was sent again to the same app, because it was certainly not processed or
    /// because repeating it does no harm.
    pub retried: u64,
    /// Requests that this release failed and another one of the app answered, so that no client saw it.
    #[serde(default)]
    pub rescued: u64,
    pub in_flight: u64,
    pub websockets: u64,
    /// WebSockets closed by a drain.
    #[serde(default)]
    pub websockets_closed: u64,
    /// Requests that were refused before they were claimed, because their header is too long.
    #[serde(default)]
    pub long_requests: u64,
    /// `(upper bound in microseconds, how many requests took at most that and more than the bound
    /// before)`, from the claim to the end of the response; the last bound is `u64::MAX`.
    pub latency_us: Vec<(u64, u64)>,
    /// The total duration of all requests, in microseconds.
    #[serde(default)]
    pub latency_sum_us: u64,
}

impl RouteStats {
    /// What the counters have risen by since `old`; the whole if they began anew.
    pub fn since(&self, old: &Self) -> Self {
        let mut risen = self.clone();
        if old.requests > self.requests {
            return risen;
        }
        risen.requests -= old.requests;
        for (class, old) in risen.by_class.iter_mut().zip(old.by_class) {
            *class = class.saturating_sub(old);
        }
        risen.failures.subtract(&old.failures);
        for (mine, old) in [
            (&mut risen.retried, old.retried),
            (&mut risen.rescued, old.rescued),
            (&mut risen.websockets_closed, old.websockets_closed),
            (&mut risen.long_requests, old.long_requests),
            (&mut risen.latency_sum_us, old.latency_sum_us),
        ] {
            *mine = mine.saturating_sub(old);
        }
        for (bucket, old) in risen.latency_us.iter_mut().zip(&old.latency_us) {
            bucket.1 = bucket.1.saturating_sub(old.1);
        }
        risen
    }

    /// Adds the counters of another object.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        for (class, more) in self.by_class.iter_mut().zip(other.by_class) {
            *class += more;
        }
        self.failures.add(&other.failures);
        self.retried += other.retried;
        self.rescued += other.rescued;
        self.in_flight += other.in_flight;
        self.websockets += other.websockets;
        self.websockets_closed += other.websockets_closed;
        self.long_requests += other.long_requests;
        for (bucket, more) in self.latency_us.iter_mut().zip(&other.latency_us) {
            bucket.1 += more.1;
        }
        self.latency_sum_us += other.latency_sum_us;
    }
}

/// Requests that did not get the app's whole response, by cause.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Failures {
    /// No target, or none that accepted a connection.
    pub connect: u64,
    /// No first byte in time, or too long a silence.
    pub timeout: u64,
    /// The app closed the connection before its response was complete.
    pub closed: u64,
    /// The app's response was not valid HTTP.
    pub malformed: u64,
    /// The header of the app's response was too long.
    #[serde(default)]
    pub long_header: u64,
    /// Cut off at the drain's deadline.
    pub drained: u64,
    /// The client went away first. Not counted as failed in a [`Receipt`](super::drain::Receipt).
    pub client: u64,
}

impl Failures {
    /// The name of each cause, and its count.
    pub fn by_cause(&self) -> [(&'static str, u64); 7] {
        [
            ("connect", self.connect),
            ("timeout", self.timeout),
            ("closed", self.closed),
            ("malformed", self.malformed),
            ("long_header", self.long_header),
            ("drained", self.drained),
            ("client", self.client),
        ]
    }

    fn subtract(&mut self, old: &Self) {
        for (mine, old) in [
            (&mut self.connect, old.connect),
            (&mut self.timeout, old.timeout),
            (&mut self.closed, old.closed),
            (&mut self.malformed, old.malformed),
            (&mut self.long_header, old.long_header),
            (&mut self.drained, old.drained),
            (&mut self.client, old.client),
        ] {
            *mine = mine.saturating_sub(old);
        }
    }

    fn add(&mut self, other: &Self) {
        self.connect += other.connect;
        self.timeout += other.timeout;
        self.closed += other.closed;
        self.malformed += other.malformed;
        self.long_header += other.long_header;
        self.drained += other.drained;
        self.client += other.client;
    }

    /// All except those that the client caused.
    pub fn total(&self) -> u64 {
        self.connect + self.timeout + self.closed + self.malformed + self.long_header + self.drained
    }
}
