//! What became of a share's requests in the last minutes, by path: the agent compares the releases of
//! an app by it. A request costs a hash of its path and a few atomic additions; a lock is taken only
//! for a path that was not seen before. Memory is bounded, whatever clients ask for.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::counters::Outcome;
use super::visit::Visit;

/// A span of the record; the present one and the one before are kept, so that between one and two
/// spans can be seen.
const SPAN: Duration = Duration::from_secs(5 * 60);
/// Paths are kept in sets of as many as fit a cache line.
const WAYS: usize = 8;
const SETS: usize = 16;
const PATHS: usize = WAYS * SETS;
/// How many clients are told apart.
const CLIENTS: usize = 3;

/// What became of the requests of one release, as the agent reads it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Tally {
    pub release: String,
    /// The newest generation of its shares.
    pub generation: u64,
    pub requests: u64,
    /// Answered with 5xx, or not answered completely, because of the app.
    pub failed: u64,
    pub paths: Vec<PathTally>,
}

/// The part of one path.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct PathTally {
    pub path: String,
    pub requests: u64,
    pub failed: u64,
    /// Whose requests failed, as numbers that mean nothing else: at most three of them.
    pub clients: Vec<u32>,
}

impl Tally {
    /// Adds what another share of the same release did.
    pub fn add(&mut self, other: Tally) {
        self.generation = self.generation.max(other.generation);
        self.requests += other.requests;
        self.failed += other.failed;
        for more in other.paths {
            match self.paths.iter_mut().find(|it| it.path == more.path) {
                Some(same) => same.add(more),
                None => self.paths.push(more),
            }
        }
    }

    pub fn path(&self, path: &str) -> Option<&PathTally> {
        self.paths.iter().find(|it| it.path == path)
    }
}

impl PathTally {
    fn add(&mut self, other: PathTally) {
        self.requests += other.requests;
        self.failed += other.failed;
        for client in other.clients {
            if self.clients.len() < CLIENTS && !self.clients.contains(&client) {
                self.clients.push(client);
            }
        }
    }
}

/// The record of one share.
pub struct Record {
    spans: [Span; 2],
    /// The present one.
    present: AtomicUsize,
    began: Mutex<Instant>,
}

#[derive(Default)]
struct Span {
    requests: AtomicU64,
    failed: AtomicU64,
    /// Most shares of a large table have no request for a long time.
    paths: OnceLock<Box<Paths>>,
}

struct Paths {
    /// 0: free.
    hashes: [[AtomicU64; WAYS]; SETS],
    counts: [Count; PATHS],
    names: Mutex<Vec<Box<str>>>,
}

#[derive(Default)]
struct Count {
    requests: AtomicU32,
    failed: AtomicU32,
    clients: [AtomicU32; CLIENTS],
}

impl Default for Record {
    fn default() -> Self {
        Self {
            spans: Default::default(),
            present: AtomicUsize::new(0),
            began: Mutex::new(Instant::now()),
        }
    }
}

impl Record {
    pub fn count(&self, visit: &Visit, outcome: Outcome, status: u16) {
        let failed = match outcome {
            Outcome::Answered => status >= 500,
            Outcome::Connect
            | Outcome::Timeout
            | Outcome::Closed
            | Outcome::Malformed
            | Outcome::LongHead => true,
            Outcome::Drained | Outcome::Client | Outcome::Maintenance => false,
        };
        let span = &self.spans[self.present.load(Relaxed) & 1];
        span.requests.fetch_add(1, Relaxed);
        if failed {
            span.failed.fetch_add(1, Relaxed);
        }
        // A scanner asks for hundreds of pages that do not exist: they take no place.
        let unknown = (400..500).contains(&status);
        let paths = span.paths.get_or_init(Box::default);
        if let Some(place) = paths.place(visit, failed, !unknown) {
            paths.counts[place].add(failed.then(|| visit.client()));
        }
    }

    /// Begins a new span if the present one is over.
    pub fn turn(&self) {
        let mut began = self.began.lock();
        if began.elapsed() >= SPAN {
            *began = Instant::now();
            let next = (self.present.load(Relaxed) + 1) & 1;
            self.spans[next].clear();
            self.present.store(next, Relaxed);
        }
    }

    pub fn tally(&self, release: &str, generation: u64) -> Tally {
        let mut all = Tally {
            release: release.to_owned(),
            generation,
            ..Tally::default()
        };
        for span in &self.spans {
            all.add(span.tally());
        }
        all
    }
}

impl Span {
    fn clear(&self) {
        self.requests.store(0, Relaxed);
        self.failed.store(0, Relaxed);
        if let Some(paths) = self.paths.get() {
            paths.clear();
        }
    }

    fn tally(&self) -> Tally {
        Tally {
            requests: self.requests.load(Relaxed),
            failed: self.failed.load(Relaxed),
            paths: self.paths.get().map(|it| it.tally()).unwrap_or_default(),
            ..Tally::default()
        }
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            hashes: Default::default(),
            counts: std::array::from_fn(|_| Count::default()),
            names: Mutex::new(vec![Box::default(); PATHS]),
        }
    }
}

impl Paths {
    /// The place of a path. One that has none yet gets a free one if it is `welcome`, and one that
    /// failed even that of a path that never did.
    fn place(&self, visit: &Visit, failed: bool, welcome: bool) -> Option<usize> {
        let hash = visit.hash();
        let set = (hash as usize) % SETS;
        let known = |set: &[AtomicU64; WAYS]| set.iter().position(|it| it.load(Relaxed) == hash);
        if let Some(way) = known(&self.hashes[set]) {
            return Some(set * WAYS + way);
        }
        let has_room = || self.hashes[set].iter().any(|it| it.load(Relaxed) == 0);
        let enters = failed || welcome && has_room();
        if !enters {
            return None;
        }
        let mut names = self.names.lock();
        if let Some(way) = known(&self.hashes[set]) {
            return Some(set * WAYS + way);
        }
        let free = self.hashes[set].iter().position(|it| it.load(Relaxed) == 0);
        let never_failed = || {
            let good = (0..WAYS).filter(|way| self.count_at(set, *way).failed.load(Relaxed) == 0);
            good.min_by_key(|way| self.count_at(set, *way).requests.load(Relaxed))
        };
        let way = free.or_else(|| never_failed().filter(|_| failed))?;
        self.count_at(set, way).clear();
        names[set * WAYS + way] = visit.path().into();
        self.hashes[set][way].store(hash, Relaxed);
        Some(set * WAYS + way)
    }

    fn count_at(&self, set: usize, way: usize) -> &Count {
        &self.counts[set * WAYS + way]
    }

    fn clear(&self) {
        let mut names = self.names.lock();
        self.hashes
            .iter()
            .flatten()
            .for_each(|it| it.store(0, Relaxed));
        self.counts.iter().for_each(Count::clear);
        names.fill(Box::default());
    }

    fn tally(&self) -> Vec<PathTally> {
        let names = self.names.lock();
        let each = names.iter().zip(&self.counts);
        let each = each.map(|(name, count)| (&**name, count));
        let used = each.filter(|(name, _)| !name.is_empty());
        let path = |(name, count): (_, &Count)| PathTally {
            path: String::from(name),
            requests: count.requests.load(Relaxed).into(),
            failed: count.failed.load(Relaxed).into(),
            clients: count.clients(),
        };
        used.map(path).collect()
    }
}

impl Count {
    fn add(&self, failed_for: Option<u32>) {
        self.requests.fetch_add(1, Relaxed);
        let Some(client) = failed_for else {
            return;
        };
        self.failed.fetch_add(1, Relaxed);
        for known in &self.clients {
            let before = known.compare_exchange(0, client, Relaxed, Relaxed);
            if before.is_ok() || before == Err(client) {
                return;
            }
        }
    }

    fn clients(&self) -> Vec<u32> {
        let clients = self.clients.iter().map(|it| it.load(Relaxed));
        clients.filter(|client| *client != 0).collect()
    }

    fn clear(&self) {
        self.requests.store(0, Relaxed);
        self.failed.store(0, Relaxed);
        self.clients.iter().for_each(|it| it.store(0, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(path: &str, client: u8) -> Visit {
        Visit::new(path, [client; 16])
    }

    fn counted(tally: &Tally, path: &str) -> (u64, u64, usize) {
        let of = tally.path(path).cloned().unwrap_or_default();
        (of.requests, of.failed, of.clients.len())
    }

    #[test]
    fn failures_are_counted_by_path_and_client() {
        let record = Record::default();
        for client in 0..5 {
            record.count(&visit("/a", client), Outcome::Answered, 500);
            record.count(&visit("/a", client), Outcome::Answered, 200);
            record.count(&visit("/b", 1), Outcome::Connect, 503);
            record.count(&visit("/c", client), Outcome::Client, 503);
        }
        let tally = record.tally("r", 1);
        assert_eq!((tally.requests, tally.failed), (20, 10));
        assert_eq!(counted(&tally, "/a"), (10, 5, CLIENTS));
        assert_eq!(counted(&tally, "/b"), (5, 5, 1));
        assert_eq!(counted(&tally, "/c"), (5, 0, 0));
    }

    #[test]
    fn memory_is_bounded_and_a_failure_finds_a_place() {
        let record = Record::default();
        for number in 0..10_000 {
            let page = format!("/page-{}", letters(number));
            record.count(&visit(&page, 1), Outcome::Answered, 404);
        }
        assert!(
            record.tally("r", 1).paths.is_empty(),
            "pages that do not exist"
        );
        for number in 0..10_000 {
            let page = format!("/page-{}", letters(number));
            record.count(&visit(&page, 1), Outcome::Answered, 200);
        }
        record.count(&visit("/broken", 1), Outcome::Answered, 502);
        let tally = record.tally("r", 1);
        assert_eq!(tally.requests, 20_001);
        assert!(tally.paths.len() <= PATHS);
        assert_eq!(counted(&tally, "/broken"), (1, 1, 1));
    }

    /// No digits, which would be left out.
    fn letters(number: u32) -> String {
        number
            .to_string()
            .bytes()
            .map(|it| char::from(it + 49))
            .collect()
    }

    #[test]
    fn two_shares_of_a_release_are_added_up() {
        let (first, second) = (Record::default(), Record::default());
        first.count(&visit("/a", 1), Outcome::Answered, 500);
        second.count(&visit("/a", 2), Outcome::Answered, 500);
        second.count(&visit("/b", 2), Outcome::Answered, 200);
        let mut all = first.tally("r", 3);
        all.add(second.tally("r", 2));
        assert_eq!((all.requests, all.failed, all.generation), (3, 2, 3));
        assert_eq!(counted(&all, "/a"), (2, 2, 2));
    }
}
