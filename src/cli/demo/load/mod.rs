//! A load generator that runs during a switch: sends every kind of request that a switch can break,
//! again and again, and reports every failure with its cause.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

mod client;
mod report;

pub use report::{Failure, Report};

/// A kind of request. Each is sent by its own workers, of which each sends one request after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One GET after the other on one connection.
    KeepAlive,
    /// A new connection for each GET.
    NewConnection,
    /// A POST with a unique body; the response must be that body.
    Post,
    /// A GET that the app takes a while to answer.
    Slow,
    /// A download that the app sends in small parts; its length is checked.
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

    /// The kind's name in reports.
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

/// What to send, and to what address.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The proxy's address.
    pub address: SocketAddr,
    /// The `Host` of every request.
    pub host: String,
    /// The number of workers for each kind.
    pub workers: usize,
    /// The pause between two requests of one worker.
    pub pause: Duration,
    /// How long the app is told to take for a slow request or a streamed download.
    pub slow: Duration,
    /// The size of a streamed download, in bytes.
    pub stream: u64,
}

impl Plan {
    /// Two workers for each kind and about 500 requests a second: enough that several requests are in
    /// progress at every moment, and little enough that a build at the same time on two cores is not
    /// starved.
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

/// A load that is running.
pub struct Load {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
}

struct Shared {
    plan: Plan,
    /// Distinguishes the POSTs of two loads.
    id: u32,
    begun: Instant,
    report: Mutex<Report>,
    /// The `x-version` of the newest response.
    version: watch::Sender<String>,
    stop: watch::Sender<bool>,
}

/// Starts to send requests.
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
    /// How many requests have ended, and how many of them have failed.
    pub fn so_far(&self) -> (u64, u64) {
        let report = self.shared.report.lock();
        (report.requests(), report.failures.len() as u64)
    }

    /// Waits until the app's `version` has answered a request. False if it does not in time.
    pub async fn until_version(&self, version: &str, deadline: Duration) -> bool {
        let mut seen = self.shared.version.subscribe();
        let wait = seen.wait_for(|seen| seen == version);
        matches!(tokio::time::timeout(deadline, wait).await, Ok(Ok(_)))
    }

    /// Waits until `count` more requests have ended, successfully or not.
    pub async fn until_more(&self, count: u64) {
        let enough = self.so_far().0 + count;
        while self.so_far().0 < enough {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops sending, waits for the requests in progress, and returns the report.
    pub async fn stop(mut self) -> Report {
        self.shared.stop.send_replace(true);
        while self.workers.join_next().await.is_some() {}
        std::mem::take(&mut *self.shared.report.lock())
    }
}
