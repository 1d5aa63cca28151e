//! What instances use, measured when somebody looks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;

use crate::engine::{Engine, Used};

/// How long the engine may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// A measurement younger than this is as good as a new one.
const FRESH: Duration = Duration::from_secs(2);
/// After this time without a look, an instance is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// The most instances that are measured for one look.
const MOST: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// How many processors, on average since the look before; `None` at the first one.
    pub cpus: Option<f64>,
    /// In bytes.
    pub memory: u64,
}

/// The last measurement of each instance.
#[derive(Default)]
pub struct Usages(Mutex<HashMap<String, (Instant, Used, Usage)>>);

impl Usages {
    /// What these containers use; those that do not run, or about which the engine says nothing in time,
    /// are missing.
    pub async fn of(&self, engine: &Engine, names: &[String]) -> HashMap<String, Usage> {
        let now = Instant::now();
        let fresh = |name: &String| {
            let all = self.0.lock();
            let (at, _, usage) = all.get(name)?;
            (now - *at < FRESH).then_some(*usage)
        };
        let measured = names.iter().take(MOST).map(async |name| {
            if let Some(usage) = fresh(name) {
                return Some((name.clone(), usage));
            }
            let used = tokio::time::timeout(PATIENCE, engine.used(name)).await;
            let used = used.ok()?.ok()??;
            Some((name.clone(), self.take(name, used)))
        });
        let measured = join_all(measured).await;
        self.0.lock().retain(|_, (at, ..)| now - *at < FORGOTTEN);
        measured.into_iter().flatten().collect()
    }

    fn take(&self, name: &str, used: Used) -> Usage {
        let (now, mut all) = (Instant::now(), self.0.lock());
        let before = all.get(name).map(|(at, used, _)| (*at, *used));
        let usage = Usage {
            cpus: before.and_then(|(at, before)| cpus(before.cpu, used.cpu, now - at)),
            memory: used.memory,
        };
        all.insert(name.to_owned(), (now, used, usage));
        usage
    }
}

/// `None` if the container was started again.
fn cpus(before: Duration, after: Duration, time: Duration) -> Option<f64> {
    let used = after.checked_sub(before)?;
    (!time.is_zero()).then(|| used.as_secs_f64() / time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_was_started_again_is_measured_anew() {
        let s = Duration::from_secs;
        assert_eq!(cpus(s(10), s(13), s(2)), Some(1.5));
        assert_eq!(cpus(s(10), s(3), s(2)), None);
        assert_eq!(cpus(s(10), s(10), s(0)), None);
    }
}
