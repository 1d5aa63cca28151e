//! How long a client may take, and how many connections there may be, in all and of one client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

/// How long a client may take, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte of a head to its last.
    pub head_ms: u64,
    /// Between two requests, and before the first.
    pub idle_ms: u64,
    /// To take in something of an answer.
    pub write_ms: u64,
}

/// The connections that are open.
#[derive(Default)]
pub struct Places {
    max: usize,
    max_per_client: usize,
    taken: AtomicUsize,
    clients: Mutex<HashMap<IpAddr, usize>>,
}

impl Places {
    pub fn new(max: usize, max_per_client: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            max_per_client,
            ..Self::default()
        })
    }

    pub fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }

    /// For a connection whose client is not known yet; `None` if there is no more.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let place = Place(self.clone(), None);
        (self.taken.fetch_add(1, Relaxed) < self.max).then_some(place)
    }
}

/// One connection's part of both, for as long as its socket is open: as a WebSocket too.
pub struct Place(Arc<Places>, Option<IpAddr>);

impl Place {
    /// Counts it as one of `client`'s; false if that has all it may have.
    pub fn is_of(&mut self, client: IpAddr) -> bool {
        let mut clients = self.0.clients.lock();
        let count = clients.entry(client).or_insert(0);
        if *count >= self.0.max_per_client {
            return false;
        }
        *count += 1;
        self.1 = Some(client);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
        let Some(client) = self.1 else { return };
        let mut clients = self.0.clients.lock();
        if let Some(count) = clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&client);
            }
        }
    }
}
