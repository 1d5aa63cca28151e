//! What the transports of one fetch share: what they may use, when they have to stop, and why they
//! failed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::config::Source;

/// From the DNS look-up to the end of the TLS handshake.
pub const CONNECT: Duration = Duration::from_secs(15);
/// git servers send a keep-alive every 5 seconds while they pack; a server that is silent for longer
/// than this is considered dead.
pub const SILENCE: Duration = Duration::from_secs(30);

/// Why a transport failed. The text is one sentence, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Not reached, or no longer, or it does not answer as a git server does.
    Unreachable(String),
    Refused(String),
    /// It gives nothing out for now, or not so much.
    Limited(String),
    UnknownServer {
        why: String,
        hint: String,
    },
    /// Cancelled, or the fetch's deadline has passed.
    Stopped,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unreachable(why)
            | Self::Refused(why)
            | Self::Limited(why)
            | Self::UnknownServer { why, .. } => why,
            Self::Stopped => "the fetch was stopped",
        })
    }
}

/// The first failure of a connection. libgit2 hands on no more of it than a text.
#[derive(Clone, Default)]
pub struct Failed(Arc<Mutex<Option<Failure>>>);

impl Failed {
    pub fn take(&self) -> Option<Failure> {
        self.0.lock().take()
    }

    fn set(&self, failure: Failure) {
        self.0.lock().get_or_insert(failure);
    }
}

pub struct Session {
    pub source: Source,
    /// The file that keeps the server's pinned key.
    pub host_key: PathBuf,
    cancel: CancellationToken,
    deadline: Instant,
    failed: Failed,
    // `None` only while it is being dropped.
    runtime: Option<Runtime>,
}

impl Session {
    pub fn new(
        source: &Source,
        host_key: PathBuf,
        cancel: &CancellationToken,
        deadline: Instant,
        failed: &Failed,
    ) -> io::Result<Self> {
        // Of this thread alone: bytes go from the socket to libgit2 without a change of threads.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self {
            source: source.clone(),
            host_key,
            cancel: cancel.clone(),
            deadline,
            failed: failed.clone(),
            runtime: Some(runtime),
        })
    }

    /// Works until it is done, for `limit` at most, and no longer than the fetch may take.
    pub fn wait<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, Failure> {
        let Some(runtime) = &self.runtime else {
            return Err(Failure::Stopped);
        };
        let stop = self.deadline.into();
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => Err(Failure::Stopped),
                done = tokio::time::timeout(limit, work) => done.map_err(|_| {
                    let limit = limit.as_secs();
                    Failure::Unreachable(format!("it was silent for {limit} seconds"))
                }),
                () = tokio::time::sleep_until(stop) => Err(Failure::Stopped),
            }
        })
    }

    /// Begins a connection: what became of the one before is no longer of interest.
    pub fn begin(&self) {
        self.failed.take();
    }

    /// Keeps the failure and returns it in the form that git2 takes from a stream.
    pub fn fail(&self, failure: Failure) -> io::Error {
        let error = io::Error::other(failure.to_string());
        self.failed.set(failure);
        error
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A DNS look-up that hangs is not waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
