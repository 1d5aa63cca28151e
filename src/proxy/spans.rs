//! Some of the requests as spans of traces, kept until the agent fetches them. What waits is bounded: if
//! nobody fetches it, the oldest goes.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// The most spans that wait.
const WAITING: usize = 4096;
/// The most spans of one answer: it has to fit into a line of the control socket.
const AT_ONCE: usize = 1024;
/// How much of a path or a host is kept, in bytes.
const TEXT: usize = 1 << 10;
/// What a ratio is counted in.
const MILLION: u64 = 1_000_000;

/// One request, from its arrival to the end of its response.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Span {
    /// 32 hexadecimal digits.
    pub trace: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// The span of whoever sent the request.
    pub parent: Option<String>,
    pub app: String,
    pub release: String,
    pub scheme: String,
    pub host: String,
    pub method: String,
    /// Without its query, which may contain tokens.
    pub path: String,
    /// 0: the client got no response.
    pub status: u16,
    /// As in the access log.
    pub outcome: String,
    /// In microseconds since 1970.
    pub began_us: u64,
    pub took_us: u64,
}

/// What the agent fetches.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Taken {
    pub spans: Vec<Span>,
    /// How many more there were since the last time, which nobody fetched in time.
    pub lost: u64,
    /// Whether others wait.
    pub more: bool,
}

#[derive(Default)]
pub struct Spans {
    /// Of a million requests, how many are picked.
    rate: AtomicU32,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    spans: VecDeque<Span>,
    lost: u64,
}

impl Spans {
    pub fn set_rate(&self, of_a_million: u32) {
        self.rate.store(of_a_million, Relaxed);
    }

    /// Whether the next request becomes a span.
    pub fn picks(&self) -> bool {
        let rate = self.rate.load(Relaxed);
        rate > 0 && random() % MILLION < u64::from(rate)
    }

    fn keep(&self, span: Span) {
        let mut waiting = self.waiting.lock();
        if waiting.spans.len() == WAITING {
            waiting.spans.pop_front();
            waiting.lost += 1;
        }
        waiting.spans.push_back(span);
    }

    /// The oldest that wait, which wait no more.
    pub fn take(&self) -> Taken {
        let mut waiting = self.waiting.lock();
        let count = waiting.spans.len().min(AT_ONCE);
        Taken {
            spans: waiting.spans.drain(..count).collect(),
            lost: std::mem::take(&mut waiting.lost),
            more: !waiting.spans.is_empty(),
        }
    }
}

/// A span that has not ended, and where it goes then.
pub struct Open {
    pub span: Span,
    pub into: Arc<Spans>,
}

impl Open {
    pub fn end(mut self, status: u16, outcome: &str, took: Duration) {
        self.span.status = status;
        self.span.outcome = outcome.into();
        self.span.took_us = took.as_micros() as u64;
        self.into.keep(self.span);
    }
}

/// As much of a text as is kept.
pub fn shortened(text: &str) -> String {
    let end = (0..=TEXT.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end));
    text[..end.unwrap_or_default()].to_owned()
}

/// In microseconds since 1970.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_micros() as u64
}

thread_local! {
    static SEED: Cell<u64> = {
        let mut seed = [0; 8];
        let _ = getrandom::fill(&mut seed);
        Cell::new(u64::from_ne_bytes(seed))
    };
}

/// Not secret (SplitMix64).
pub fn random() -> u64 {
    let seed = SEED.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    SEED.set(seed);
    let mut mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(number: u64) -> Span {
        Span {
            trace: String::new(),
            id: String::new(),
            parent: None,
            app: "a".into(),
            release: "r".into(),
            scheme: "http".into(),
            host: "a.test".into(),
            method: "GET".into(),
            path: "/".into(),
            status: 200,
            outcome: "answered".into(),
            began_us: number,
            took_us: 1,
        }
    }

    #[test]
    fn as_many_are_picked_as_was_asked_for() {
        let spans = Spans::default();
        let picked = |rate| {
            spans.set_rate(rate as u32);
            (0..100_000).filter(|_| spans.picks()).count()
        };
        assert_eq!((picked(0), picked(MILLION)), (0, 100_000));
        let tenth = picked(MILLION / 10);
        assert!((9_000..11_000).contains(&tenth), "{tenth}");
    }

    #[test]
    fn the_oldest_go_if_nobody_takes_them() {
        let spans = Spans::default();
        let all = WAITING as u64 + 5;
        (0..all).for_each(|number| spans.keep(span(number)));
        let taken = spans.take();
        assert_eq!((taken.lost, taken.more), (5, true));
        assert_eq!(taken.spans[0].began_us, 5);
        let mut count = taken.spans.len();
        loop {
            let taken = spans.take();
            count += taken.spans.len();
            assert_eq!(taken.lost, 0, "told once");
            if !taken.more {
                break;
            }
        }
        assert_eq!(count, WAITING);
        assert_eq!(spans.take(), Taken::default());
    }

    #[test]
    fn a_text_is_cut_between_two_characters() {
        assert_eq!(shortened("/é"), "/é");
        assert_eq!(shortened(&"é".repeat(1000)).len(), TEXT);
        assert_eq!(shortened(&format!("/{}", "é".repeat(1000))).len(), TEXT - 1);
    }
}
