//! Reads the proxy's counters for the charts.

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};

use crate::deploy::Agent;
use crate::deploy::traffic::STEP;
use crate::store::now;

/// Looks at every step. While the proxy does not answer, there are no points.
pub async fn traffic(agent: Arc<Agent>) {
    let mut ticks = interval(STEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        if let Ok(stats) = agent.proxy.stats().await {
            agent.traffic.take(stats, now());
        }
    }
}
