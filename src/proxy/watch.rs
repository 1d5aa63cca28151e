//! Deadlines and wake-ups without a timer per request. Every client connection (with HTTP/2: every
//! stream) owns one [`Watch`]; moving a deadline is one store. A sweep wakes the tasks whose
//! deadline has passed, and the drain wakes those that hold a request of its share; the tasks then
//! look for themselves.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// No deadline.
pub const NEVER: u64 = u64::MAX;
/// In [`Watch::share`]: a request that waits for its route.
pub const HELD: u64 = u64::MAX;
/// How late a deadline may be noticed.
pub const SWEEP: Duration = Duration::from_millis(100);

/// After so long without a byte a connection is put to rest: longer than the requests of one page
/// are apart, and so short that a crowd of new clients does not need room all at once.
pub const REST_MS: u64 = 100;

/// The clock as of the last sweep: a request looks at it several times.
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

/// What may end a wait of one client connection or stream.
pub struct Watch {
    waker: AtomicWaker,
    /// When the client must have sent or taken something.
    pub client: Deadline,
    /// When the app must have.
    pub upstream: Deadline,
    /// When a connection that nothing comes from is put to rest.
    pub rest: Deadline,
    /// Every request that began has come whole.
    pub between: AtomicBool,
    /// How long the client may be silent between two requests, in milliseconds; 0: not seen to here.
    pub idle_ms: AtomicU64,
    /// With HTTP/2: when the client must have made room for more of the answer.
    pub taking: Deadline,
    /// How long it has for that, in milliseconds; 0: the connection itself sees to it.
    pub takes_ms: AtomicU64,
    /// A request is being answered, on whatever route.
    pub answering: AtomicBool,
    /// The id of the share whose request is under way, or [`HELD`]; 0: none.
    pub share: AtomicU64,
    /// The connection now carries another protocol.
    pub tunnel: AtomicBool,
    /// The client requested another protocol, and its bytes are no longer checked: unless the
    /// protocol is switched, this request is the connection's last.
    pub unfollowed: AtomicBool,
    /// The drain found the request even after its deadline: also what waits only for the client must
    /// end.
    pub killed: AtomicBool,
    /// The connection, where this is one of its streams.
    parent: Option<Arc<Watch>>,
    /// How many of its streams there are. Not seen from who holds the watch: the sweep does too.
    streams: AtomicUsize,
    /// The request's body grew beyond its cap.
    pub too_large: AtomicBool,
}

impl Watch {
    /// Wakes the task that last called this when something may have ended its wait. Call it before
    /// looking at deadlines, or a wake-up in between is lost.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// The request under way has been answered: the next one is waited for, and not for ever. hyper
    /// need not look for it before it comes.
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

    /// Nothing is under way, and has not been for a while.
    pub fn may_rest(&self) -> bool {
        self.rest.has_passed()
            && self.between.load(Relaxed)
            && self.share.load(SeqCst) == 0
            && !self.answering.load(SeqCst)
    }

    /// Some of its streams are open.
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

/// A moment in [`now_ms`] time, or [`NEVER`].
pub struct Deadline(AtomicU64);

impl Deadline {
    const fn never() -> Self {
        Self(AtomicU64::new(NEVER))
    }

    pub fn set_in(&self, ms: u64) {
        // The clock may be behind: late is better than early.
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

/// Every watch that is alive.
#[derive(Default)]
pub struct Watches(Mutex<Vec<Weak<Watch>>>);

impl Watches {
    pub fn add(&self) -> Arc<Watch> {
        self.add_to(None)
    }

    /// For one stream of a connection.
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
            parent,
            streams: AtomicUsize::new(0),
            too_large: AtomicBool::new(false),
        });
        self.0.lock().push(Arc::downgrade(&watch));
        watch
    }

    /// Wakes every task whose deadline has passed. To be called every [`SWEEP`].
    pub fn sweep(&self) {
        look_at_the_clock();
        self.each(|watch| {
            let deadlines = [&watch.client, &watch.upstream, &watch.rest, &watch.taking];
            deadlines.into_iter().any(Deadline::has_passed)
        });
    }

    /// Wakes every request of the share with this id.
    pub fn wake_share(&self, id: u64) {
        // SeqCst, as the request's own store and load: it either sees the share's new phase or is
        // seen here.
        self.each(|watch| watch.share.load(SeqCst) == id);
    }

    /// Ends the connections, or streams, of those requests of the share that did not end when woken:
    /// they wait for a client that takes nothing.
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

    /// Else a sweep that has just looked at it made an idle connection look busy, for as long as it
    /// did so at the wrong moment.
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
