//! Idle connections to one target of one route object. A pool dies with its route: an address that
//! is used again belongs to another pool, so no request reaches the wrong app.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::app_io::AppIo;
use super::body::RequestBody;
use super::worker;

/// Per target and thread.
const MAX_IDLE: usize = 512;

/// A connection to an app, driven by whoever holds it: there is no task behind it.
pub struct Upstream {
    pub sender: http1::SendRequest<RequestBody>,
    pub connection: http1::Connection<TokioIo<AppIo>, RequestBody>,
    /// Carried a request before.
    pub reused: bool,
    idle_since: Instant,
}

impl Upstream {
    pub async fn connect(target: SocketAddr, limit: Duration) -> std::io::Result<Box<Self>> {
        let stream = tokio::time::timeout(limit, TcpStream::connect(target)).await??;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(AppIo::new(stream)))
            .await
            .map_err(std::io::Error::other)?;
        let mut upstream = Box::new(Self {
            sender,
            connection,
            reused: false,
            idle_since: Instant::now(),
        });
        upstream.settle();
        Ok(upstream)
    }

    /// Lets the connection take in whatever has arrived. False: it has been closed, or is not at
    /// rest between two requests.
    fn settle(&mut self) -> bool {
        // Nobody is to be woken: the next holder polls it anyway.
        let mut noop = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.connection).poll(&mut noop) {
            Poll::Ready(_) => false,
            Poll::Pending => self.sender.is_ready(),
        }
    }
}

#[derive(Default)]
// Boxed: it is large, and moves from hand to hand several times a request.
#[allow(clippy::vec_box)]
pub struct Pool([Mutex<Vec<Box<Upstream>>>; worker::MAX]);

impl Pool {
    /// The connection that was used last, if it has been idle for less than `at_most` and the app
    /// has not closed it.
    pub fn take(&self, at_most: Duration) -> Option<Box<Upstream>> {
        let slot = &self.0[worker::slot()];
        loop {
            let mut upstream = slot.lock().pop()?;
            if upstream.idle_since.elapsed() < at_most {
                if upstream.settle() {
                    return Some(upstream);
                }
            } else {
                // Those below it have been idle for longer still, but another request may be
                // content with this one.
                slot.lock().push(upstream);
                return None;
            }
        }
    }

    /// Keeps the connection if it is at rest.
    pub fn put(&self, mut upstream: Box<Upstream>) {
        if !upstream.settle() {
            return;
        }
        upstream.reused = true;
        upstream.idle_since = Instant::now();
        let mut idle = self.0[worker::slot()].lock();
        if idle.len() < MAX_IDLE {
            idle.push(upstream);
        }
    }

    /// Closes those that have been idle for `limit`; zero: all.
    pub fn prune(&self, limit: Duration) {
        for slot in &self.0 {
            // Dropped outside the lock: closing is a system call each.
            let old: Vec<_> = {
                let mut idle = slot.lock();
                let keep = idle.partition_point(|u| u.idle_since.elapsed() >= limit);
                idle.drain(..keep).collect()
            };
            drop(old);
        }
    }
}
