//! What the proxy's counters have risen by from one look to the next.

use std::collections::HashMap;

use crate::proxy::control::RouteStats;

/// App, release and generation.
pub type Key = (String, String, u64);

/// The counters at the last look.
#[derive(Default)]
pub struct Counters(HashMap<Key, RouteStats>);

impl Counters {
    /// What the counters of each release have risen by since the last look; the whole of those that were
    /// not there, or that a new proxy counts from 0.
    pub fn risen(&mut self, stats: Vec<RouteStats>) -> HashMap<Key, RouteStats> {
        let mut now: HashMap<Key, RouteStats> = HashMap::new();
        for route in stats {
            let key = (route.app.clone(), route.release.clone(), route.generation);
            match now.get_mut(&key) {
                // A route whose settings have changed is listed twice.
                Some(same) => same.add(&route),
                None => drop(now.insert(key, route)),
            }
        }
        let before = std::mem::replace(&mut self.0, now);
        let risen = |(key, route): (&Key, &RouteStats)| {
            let old = before.get(key);
            let risen = old.map_or_else(|| route.clone(), |old| route.since(old));
            (key.clone(), risen)
        };
        self.0.iter().map(risen).collect()
    }
}
