//! Reads the proxy's counters for the charts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::deploy::Agent;
use crate::deploy::traffic::HOUR;
use crate::store::{apps, now};

/// Looks at every step. While the proxy does not answer, there are no points.
pub async fn traffic(agent: Arc<Agent>) {
    let mut ticks = interval(Duration::from_millis(HOUR.step as u64));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        if let Ok(stats) = agent.proxy.stats().await {
            // Without the database, their 503 counts as it does for others.
            let stopped = agent.store.read(apps::all_stopped).await;
            agent.totals.take(stats.clone());
            agent
                .traffic
                .take(stats, &stopped.unwrap_or_default(), now());
        }
    }
}
