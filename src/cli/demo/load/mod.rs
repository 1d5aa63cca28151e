//! A load generator that runs through a switch: every kind of request that a switch can break, each
//! over and over, and a report of every failure with its cause.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

mod client;
mod report;

pub use report::{Failure, Report};

/// A kind of request. Each is sent by its own workers, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// GET after GET on one connection.
    KeepAlive,
    /// A new connection for each GET.
    NewConnection,
    /// POST with a body that no other request has; the answer must be that body.
    Post,
    /// A GET that the app takes its time for.
    Slow,
    /// A download that the app sends bit by bit; its length is checked.
    Stream,
}

impl Kind {
    pub const ALL: [Kind; 5] = [
        Kind::KeepAlive,
        Kind::NewConnection,
        Kind::Post,
        Kind::Slow,
        Kind::Stream,
    ];

    /// How reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::KeepAlive => "GET, keep-alive",
            Kind::NewConnection => "GET, new connection",
            Kind::Post => "POST with a body",
            Kind::Slow => "slow request",
            Kind::Stream => "streamed download",
        }
    }
}

/// What to send, and where to.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The proxy.
    pub address: SocketAddr,
    /// The `Host` of every request.
    pub host: String,
    /// Workers for each kind.
    pub workers: usize,
    /// The pause between two requests of a worker.
    pub pause: Duration,
    /// How long the app is asked to take for a slow request or a streamed download.
    pub slow: Duration,
    /// Bytes of a streamed download.
    pub stream: u64,
}

impl Plan {
    /// Two workers a kind and about 500 requests a second: enough that several requests are under
    /// way at every moment, and little enough that a build beside it on two cores is not starved.
    pub fn new(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            host: host.to_owned(),
            workers: 2,
            pause: Duration::from_millis(10),
            slow: Duration::from_millis(400),
            stream: 64 << 10,
        }
    }
}

/// Load that is running.
pub struct Load {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
}

struct Shared {
    plan: Plan,
    /// Tells the posts of two loads apart.
    id: u32,
    begun: Instant,
    report: Mutex<Report>,
    /// The `x-version` of the newest answer.
    version: watch::Sender<String>,
    stop: watch::Sender<bool>,
}

/// Starts to send.
pub fn start(plan: Plan) -> Load {
    let shared = Arc::new(Shared {
        id: getrandom::u32().unwrap_or_default(),
        begun: Instant::now(),
        report: Mutex::default(),
        version: watch::Sender::default(),
        stop: watch::Sender::new(false),
        plan,
    });
    let mut workers = JoinSet::new();
    for kind in Kind::ALL {
        for number in 0..shared.plan.workers {
            workers.spawn(client::work(kind, number, shared.clone()));
        }
    }
    Load { shared, workers }
}

impl Load {
    /// Requests that have ended, and how many of them failed.
    pub fn so_far(&self) -> (u64, u64) {
        let report = self.shared.report.lock();
        (report.requests(), report.failures.len() as u64)
    }

    /// Waits until an answer came from the app's `version`; false when none came in time.
    pub async fn until_version(&self, version: &str, deadline: Duration) -> bool {
        let mut seen = self.shared.version.subscribe();
        let wait = seen.wait_for(|seen| seen == version);
        matches!(tokio::time::timeout(deadline, wait).await, Ok(Ok(_)))
    }

    /// Waits until `count` more requests have ended, whatever came of them.
    pub async fn until_more(&self, count: u64) {
        let enough = self.so_far().0 + count;
        while self.so_far().0 < enough {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends no more, waits for the requests under way, and reports.
    pub async fn stop(mut self) -> Report {
        self.shared.stop.send_replace(true);
        while self.workers.join_next().await.is_some() {}
        std::mem::take(&mut *self.shared.report.lock())
    }
}
