//! What this process logs, which can be changed for a while as it runs.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// What the log lines of more detail are for: nobody wants them for ever.
pub const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The longest text of a filter.
const TEXT: usize = 200;

type Set = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

static SET: OnceLock<(String, Set)> = OnceLock::new();
static NOW: Mutex<Now> = Mutex::new(Now {
    change: None,
    count: 0,
});

/// Another level than usual.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// `debug`, or directives such as `cutover::deploy=trace`.
    pub level: String,
    /// In milliseconds since 1970.
    pub until: i64,
}

struct Now {
    change: Option<Change>,
    /// Of all changes so far: the end of one that was replaced changes nothing.
    count: u64,
}

/// Tells how the filter is replaced; `usual` is what applies otherwise.
pub fn install(usual: String, set: impl Fn(EnvFilter) -> bool + Send + Sync + 'static) {
    let _ = SET.set((usual, Box::new(set)));
}

/// The usual filter, and what is logged in place of it at the moment.
pub fn now() -> (String, Option<Change>) {
    let usual = SET.get().map(|(usual, _)| usual.clone());
    (usual.unwrap_or_default(), NOW.lock().change.clone())
}

/// Whether a text can be a level: a word such as `debug` means Cutover's own lines.
pub fn check(level: &str) -> Result<(), String> {
    let wrong = |why: &str| {
        let shown = level.escape_debug();
        format!(
            "`{shown}` is not a level: expected `error`, `warn`, `info`, `debug`, `trace`, or directives such as \
             `cutover::deploy=trace`{why}"
        )
    };
    if level.is_empty() || level.len() > TEXT || level.contains(char::is_control) {
        return Err(wrong(""));
    }
    if !level.contains('=') {
        let all = ["error", "warn", "info", "debug", "trace"];
        return all.contains(&level).then_some(()).ok_or_else(|| wrong(""));
    }
    let filter = EnvFilter::try_new(level);
    filter
        .map(drop)
        .map_err(|error| wrong(&format!(": {error}")))
}

/// Logs at this level until then, or as usual.
fn set(change: Option<Change>) -> bool {
    let Some((usual, set)) = SET.get() else {
        return false;
    };
    let mut now = NOW.lock();
    let text = match &change {
        None => usual.clone(),
        Some(it) if it.level.contains('=') => format!("{usual},{}", it.level),
        Some(it) => format!("{usual},cutover={}", it.level),
    };
    let is_set = EnvFilter::try_new(text).is_ok_and(set);
    if is_set {
        now.change = change;
        now.count += 1;
    }
    is_set
}

/// Sets the level, or the usual one for `None`; after a while that applies again. False if nothing can be set
/// here.
pub fn set_for(level: Option<String>, time: Duration) -> bool {
    let Some(level) = level else {
        return set(None);
    };
    let at = SystemTime::now() + time;
    let until = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let change = Change {
        level,
        until: until.as_millis() as i64,
    };
    if !set(Some(change)) {
        return false;
    }
    let count = NOW.lock().count;
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        if NOW.lock().count == count {
            set(None);
            tracing::info!("the log's level is the usual one again");
        }
    });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_word_or_directives() {
        for good in ["debug", "cutover::deploy=trace,hyper=debug", "cutover=off"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for wrong in ["", "loud", "hyper", "cutover=loud", "debug\n", "=debug=="] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
