//! Deadlines and wake-ups without a timer for each request. Every client connection, and every stream
//! of an HTTP/2 connection, owns one [`Watch`]; moving a deadline is one atomic store. A sweep wakes
//! the tasks whose deadline has passed, and a drain wakes those that have a request of its share; each
//! task then checks for itself what has happened.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::wire::framing::LongHead;

/// No deadline is set.
pub const NEVER: u64 = u64::MAX;
/// The value of [`Watch::share`] while a request is held back until its route can serve it.
pub const HELD: u64 = u64::MAX;
/// The interval between two sweeps, which is how late a deadline may be noticed.
pub const SWEEP: Duration = Duration::from_millis(100);

/// A connection on which nothing has arrived for this long, in milliseconds, is put to rest. It is
/// longer than the gaps between the requests of one page, and short enough that a crowd of new clients
/// does not need memory for buffers all at once.
pub const REST_MS: u64 = 100;

/// The clock as of the last sweep, kept because a request reads it several times.
static NOW: AtomicU64 = AtomicU64::new(0);

/// Milliseconds since the proxy's start, at most one [`SWEEP`] behind.
pub fn now_ms() -> u64 {
    NOW.load(Relaxed)
}

fn look_at_the_clock() {
    static START: OnceLock<Instant> = OnceLock::new();
    let now = START.get_or_init(Instant::now).elapsed().as_millis();
    NOW.fetch_max(now as u64, Relaxed);
}

/// What can end the wait of one client connection or stream.
pub struct Watch {
    waker: AtomicWaker,
    /// When the client must have sent or read something.
    pub client: Deadline,
    /// When the app must have sent or read something.
    pub upstream: Deadline,
    /// When the connection is put to rest unless something arrives.
    pub rest: Deadline,
    /// Every request that the client has begun has arrived completely.
    pub between: AtomicBool,
    /// How long the client may be silent between two requests, in milliseconds; 0: not enforced through
    /// this watch.
    pub idle_ms: AtomicU64,
    /// With HTTP/2: when the client must have made room for more of the response.
    pub taking: Deadline,
    /// How long it may take for that, in milliseconds; 0: the connection enforces the limit itself.
    pub takes_ms: AtomicU64,
    /// A request is being answered, on any route.
    pub answering: AtomicBool,
    /// The id of the share whose request is in progress, or [`HELD`]; 0: none.
    pub share: AtomicU64,
    /// The connection now carries another protocol.
    pub tunnel: AtomicBool,
    /// The client requested another protocol, and its bytes are no longer checked: unless the
    /// protocol is switched, this request is the connection's last.
    pub unfollowed: AtomicBool,
    /// The drain still found the request after its deadline: it must end even if it only waits for the
    /// client.
    pub killed: AtomicBool,
    /// What the client is counted by, if its idle connections may be closed to make room for others.
    pub network: OnceLock<IpAddr>,
    /// The connection is closed as soon as it is idle: others need its place.
    pub yields: AtomicBool,
    /// The connection's watch, if this is the watch of one of its streams.
    parent: Option<Arc<Watch>>,
    /// How many of its streams are open. The reference count does not tell: the sweep holds references
    /// too.
    streams: AtomicUsize,
    /// The request's body is larger than allowed.
    pub too_large: AtomicBool,
    /// The connection's request whose head is too long, which is its last.
    pub long_head: OnceLock<Box<LongHead>>,
    /// A head has more fields than hyper's part of the connection takes, which is to be made anew.
    pub widens: AtomicBool,
}

impl Watch {
    /// Wakes the task that last called this when something may have ended its wait. Must be called
    /// before checking the deadlines, or a wake-up in between is lost.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// The request in progress has been answered, and the client has a limited time to send the next
    /// one. Until that arrives, hyper's part of the connection can be put to rest.
    pub fn request_done(&self) {
        self.share.store(0, SeqCst);
        match self.idle_ms.load(Relaxed) {
            0 => {}
            idle => {
                self.client.set_in(idle);
                self.rest.set_in(REST_MS);
            }
        }
    }

    /// Whether nothing has been in progress for a while, so that the connection can be put to rest.
    pub fn may_rest(&self) -> bool {
        self.rest.has_passed()
            && self.between.load(Relaxed)
            && self.share.load(SeqCst) == 0
            && !self.answering.load(SeqCst)
    }

    /// Whether hyper's part of the connection can be made anew now: nothing is in progress.
    pub fn may_widen(&self) -> bool {
        self.widens.load(Relaxed) && self.share.load(SeqCst) == 0 && !self.answering.load(SeqCst)
    }

    /// Whether the connection only waits for its client's next request.
    fn is_idle(&self) -> bool {
        self.client.is_set()
            && self.share.load(SeqCst) == 0
            && !self.answering.load(SeqCst)
            && !self.tunnel.load(SeqCst)
            && !self.has_streams()
            && !self.yields.load(SeqCst)
    }

    /// Whether any of its streams is open.
    pub fn has_streams(&self) -> bool {
        self.streams.load(SeqCst) > 0
    }

    pub fn wake(&self) {
        self.waker.wake();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(parent) = &self.parent {
            parent.streams.fetch_sub(1, SeqCst);
        }
    }
}

/// A time as in [`now_ms`], or [`NEVER`].
pub struct Deadline(AtomicU64);

impl Deadline {
    const fn never() -> Self {
        Self(AtomicU64::new(NEVER))
    }

    pub fn set_in(&self, ms: u64) {
        // The clock may be one sweep behind: better late than early.
        let ms = ms.saturating_add(SWEEP.as_millis() as u64);
        self.0.store(now_ms().saturating_add(ms), Relaxed);
    }

    pub fn clear(&self) {
        self.0.store(NEVER, Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Relaxed) != NEVER
    }

    pub fn has_passed(&self) -> bool {
        self.is_set() && self.0.load(Relaxed) <= now_ms()
    }
}

/// Every watch that still exists.
#[derive(Default)]
pub struct Watches(Mutex<Vec<Weak<Watch>>>);

impl Watches {
    pub fn add(&self) -> Arc<Watch> {
        self.add_to(None)
    }

    /// A watch for one stream of a connection.
    pub fn add_stream(&self, parent: &Arc<Watch>) -> Arc<Watch> {
        parent.streams.fetch_add(1, SeqCst);
        self.add_to(Some(parent.clone()))
    }

    fn add_to(&self, parent: Option<Arc<Watch>>) -> Arc<Watch> {
        let watch = Arc::new(Watch {
            waker: AtomicWaker::new(),
            client: Deadline::never(),
            upstream: Deadline::never(),
            rest: Deadline::never(),
            between: AtomicBool::new(false),
            idle_ms: AtomicU64::new(0),
            taking: Deadline::never(),
            takes_ms: AtomicU64::new(0),
            answering: AtomicBool::new(false),
            share: AtomicU64::new(0),
            tunnel: AtomicBool::new(false),
            unfollowed: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            network: OnceLock::new(),
            yields: AtomicBool::new(false),
            parent,
            streams: AtomicUsize::new(0),
            too_large: AtomicBool::new(false),
            long_head: OnceLock::new(),
            widens: AtomicBool::new(false),
        });
        self.0.lock().push(Arc::downgrade(&watch));
        watch
    }

    /// Wakes every task whose deadline has passed. Must be called every [`SWEEP`].
    pub fn sweep(&self) {
        look_at_the_clock();
        self.each(|watch| {
            let deadlines = [&watch.client, &watch.upstream, &watch.rest, &watch.taking];
            deadlines.into_iter().any(Deadline::has_passed)
        });
    }

    /// Closes up to `count` idle connections, first those of the client that has the most connections;
    /// of one client, the oldest.
    pub fn make_room(&self, count: usize) {
        let all: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        let mut clients: HashMap<IpAddr, (usize, Vec<&Arc<Watch>>)> = HashMap::new();
        for watch in &all {
            let Some(network) = watch.network.get() else {
                continue;
            };
            let (connections, idle) = clients.entry(*network).or_default();
            *connections += 1;
            if watch.is_idle() {
                idle.push(watch);
            }
        }
        let mut clients: Vec<_> = clients.into_values().collect();
        clients.sort_by_key(|(connections, _)| Reverse(*connections));
        let idle = clients.into_iter().flat_map(|(_, idle)| idle);
        for watch in idle.take(count) {
            watch.yields.store(true, SeqCst);
            watch.wake();
        }
    }

    /// Wakes every task that has a request of the share with this id.
    pub fn wake_share(&self, id: u64) {
        // SeqCst, like the request's own store and load: either the request sees the share's new phase,
        // or it is found here.
        self.each(|watch| watch.share.load(SeqCst) == id);
    }

    /// Ends the connections, or streams, of those requests of the share that did not end when woken:
    /// they wait for a client that does not read.
    pub fn kill_share(&self, id: u64) {
        self.each(|watch| {
            let its = watch.share.load(SeqCst) == id;
            if its {
                watch.killed.store(true, SeqCst);
                watch.wake();
            }
            false
        });
    }

    pub fn wake_all(&self) {
        self.each(|_| true);
    }

    fn each(&self, woken: impl Fn(&Watch) -> bool) {
        self.0.lock().retain(|watch| {
            let Some(watch) = watch.upgrade() else {
                return false;
            };
            if woken(&watch) {
                watch.wake();
            }
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If the reference count were used instead, a sweep that holds a reference at the wrong moment
    /// would make an idle connection look busy.
    #[test]
    fn whoever_holds_a_connections_watch_is_no_stream_of_it() {
        let watches = Watches::default();
        let connection = watches.add();
        let sweep = connection.clone();
        assert!(!connection.has_streams());
        let stream = watches.add_stream(&connection);
        assert!(connection.has_streams());
        drop(stream);
        assert!(!connection.has_streams());
        drop(sweep);
    }
}
