//! A limit on log lines that a stranger can cause: a few of each kind a minute, then how many more there
//! were.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How many lines of one kind are logged in one [`WINDOW`].
const FEW: u32 = 3;
const WINDOW: Duration = Duration::from_secs(60);

/// The lines of one kind. A call of [`limited`] has its own.
pub struct Limit(Mutex<State>);

struct State {
    /// When the window began.
    since: Option<Instant>,
    said: u32,
    left_out: u64,
}

impl Limit {
    pub const fn new() -> Self {
        Self(Mutex::new(State {
            since: None,
            said: 0,
            left_out: 0,
        }))
    }

    /// Whether a line may be logged. Lines that may not are counted, and their number is logged once the
    /// window is over.
    pub fn allows(&'static self, kind: &'static str) -> bool {
        let counted = self.count(Instant::now());
        tell(kind, counted.more);
        if counted.is_first_left_out
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                tokio::time::sleep(WINDOW).await;
                tell(kind, std::mem::take(&mut self.0.lock().left_out));
            });
        }
        counted.allows
    }

    fn count(&self, now: Instant) -> Counted {
        let mut state = self.0.lock();
        let mut counted = Counted::default();
        if state.since.is_none_or(|since| now >= since + WINDOW) {
            state.since = Some(now);
            state.said = 0;
            counted.more = std::mem::take(&mut state.left_out);
        }
        if state.said < FEW {
            state.said += 1;
            counted.allows = true;
        } else {
            state.left_out += 1;
            counted.is_first_left_out = state.left_out == 1;
        }
        counted
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    allows: bool,
    is_first_left_out: bool,
    /// How many lines were left out in the window before, if nobody has said so.
    more: u64,
}

fn tell(kind: &'static str, more: u64) {
    if more > 0 {
        tracing::warn!(more, "{kind}: more lines like this were left out");
    }
}

/// `limited!(warn, "kind", …)` logs as `tracing::warn!(…)` does, but only a few lines of this kind a
/// minute.
macro_rules! limited {
    ($level:ident, $kind:literal, $($line:tt)+) => {{
        static LIMIT: $crate::log_limit::Limit = $crate::log_limit::Limit::new();
        if LIMIT.allows($kind) {
            tracing::$level!($($line)+);
        }
    }};
}
pub(crate) use limited;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_a_minute_are_logged_and_the_rest_is_counted_once() {
        let limit = Limit::new();
        let begin = Instant::now();
        let seen: Vec<_> = (0..6).map(|_| limit.count(begin)).collect();
        let allowed: Vec<_> = seen.iter().map(|counted| counted.allows).collect();
        assert_eq!(allowed, [true, true, true, false, false, false]);
        let first: Vec<_> = seen.iter().map(|it| it.is_first_left_out).collect();
        assert_eq!(first, [false, false, false, true, false, false]);
        let next = limit.count(begin + WINDOW);
        assert_eq!((next.allows, next.more), (true, 3));
        assert_eq!(limit.count(begin + WINDOW).more, 0, "it is said once");
    }
}
