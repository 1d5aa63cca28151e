//! The progress of a fetch, for the deployment's log: a line every few seconds, however large the file
//! that is being received.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::resolve::line;

const EVERY: Duration = Duration::from_secs(2);

pub(super) struct Progress<'a> {
    log: &'a dyn Fn(&str),
    last: Cell<Instant>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(log: &'a dyn Fn(&str)) -> Self {
        let last = Cell::new(Instant::now());
        Self { log, last }
    }

    /// Logs what the server says it is doing: counting, compressing.
    pub(super) fn remote(&self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        let last = text
            .split(['\r', '\n'])
            .rfind(|part| !part.trim().is_empty());
        if let Some(text) = last
            && self.is_time()
        {
            (self.log)(&format!("remote: {}", line(text)));
        }
    }

    pub(super) fn received(&self, stats: &git2::Progress<'_>) {
        if self.is_time() {
            (self.log)(&format!(
                "fetching: {} of {} objects, {} MiB",
                stats.received_objects(),
                stats.total_objects(),
                stats.received_bytes() >> 20
            ));
        }
    }

    fn is_time(&self) -> bool {
        let time = self.last.get().elapsed() >= EVERY;
        if time {
            self.last.set(Instant::now());
        }
        time
    }
}
