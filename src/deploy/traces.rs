//! How many spans of traces were sent, for the metrics.

use std::sync::atomic::AtomicU64;

#[derive(Default)]
pub struct Traces {
    pub sent: AtomicU64,
    /// Refused by the collector, or let go because it was down.
    pub lost: AtomicU64,
}
