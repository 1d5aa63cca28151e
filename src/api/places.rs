//! The places for connections. When all are taken, a connection that is waiting for its client makes
//! room: the oldest one of the network that has the most connections. So a client that opens
//! connections and sends nothing holds up nobody, and the agent keeps file descriptors for its own
//! work.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};
use tokio::sync::Notify;

use crate::proxy::network_of;

/// How many connections the limit of open files allows, after what is open now; half of the rest is
/// kept for the agent's own work. At most `most`.
pub fn affordable(most: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| limit.try_into().unwrap_or(usize::MAX));
    let open = std::fs::read_dir("/proc/self/fd").map_or(64, Iterator::count);
    (limit.saturating_sub(open) / 2).clamp(1, most)
}

pub struct Places {
    limit: usize,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Default)]
struct Taken {
    next: u64,
    /// In the order in which they were accepted.
    connections: BTreeMap<u64, Connection>,
}

struct Connection {
    network: IpAddr,
    /// Whether it waits for its client: for a head, or for the rest of a body.
    waits: bool,
    leave: Arc<Notify>,
    leaves: bool,
}

impl Places {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            taken: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// A place for a connection of `client`, as soon as there is one.
    pub async fn take(self: &Arc<Self>, client: IpAddr) -> Place {
        loop {
            let freed = self.freed.notified();
            if let Some(place) = self.try_take(network_of(client)) {
                return place;
            }
            freed.await;
        }
    }

    fn try_take(self: &Arc<Self>, network: IpAddr) -> Option<Place> {
        let mut taken = self.taken.lock();
        if taken.connections.len() >= self.limit {
            taken.make_room();
            return None;
        }
        let id = taken.next;
        taken.next += 1;
        let leave = Arc::new(Notify::new());
        let connection = Connection {
            network,
            waits: true,
            leave: leave.clone(),
            leaves: false,
        };
        taken.connections.insert(id, connection);
        let places = self.clone();
        Some(Place { places, id, leave })
    }
}

impl Taken {
    /// Tells one connection to leave, unless one has been told already.
    fn make_room(&mut self) {
        if self.connections.values().any(|it| it.leaves) {
            return;
        }
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for connection in self.connections.values() {
            *counts.entry(connection.network).or_default() += 1;
        }
        // `max_by_key` returns the last of several equal ones; in this reversed order that is the
        // oldest.
        let waiting = self.connections.values_mut().rev().filter(|it| it.waits);
        if let Some(victim) = waiting.max_by_key(|it| counts[&it.network]) {
            victim.leaves = true;
            victim.leave.notify_one();
        }
    }
}

/// One connection's place, held until it is dropped.
pub struct Place {
    places: Arc<Places>,
    id: u64,
    leave: Arc<Notify>,
}

impl Place {
    /// Returns when another connection needs the place.
    pub async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    /// Whether the connection still waits for its client and so can leave; if not, another one must
    /// leave.
    pub fn makes_room(&self) -> bool {
        let waits = self.change(|it| {
            it.leaves = it.waits;
            it.waits
        });
        if !waits {
            self.places.freed.notify_one();
        }
        waits
    }

    fn waits(&self, waits: bool) {
        self.change(|it| it.waits = waits);
        if waits {
            // A connection that needs a place may take this one now.
            self.places.freed.notify_one();
        }
    }

    fn change<T: Default>(&self, change: impl FnOnce(&mut Connection) -> T) -> T {
        let mut taken = self.places.taken.lock();
        taken
            .connections
            .get_mut(&self.id)
            .map(change)
            .unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.lock().connections.remove(&self.id);
        self.places.freed.notify_one();
    }
}

/// A request's body. Once all of it has arrived, the connection no longer waits for its client.
pub struct Arriving<B> {
    body: B,
    place: Option<Arc<Place>>,
}

impl<B: Body> Arriving<B> {
    pub fn new(body: B, place: Option<Arc<Place>>) -> Self {
        let arriving = Self { body, place };
        arriving.look();
        arriving
    }

    fn look(&self) {
        if let Some(place) = &self.place
            && self.body.is_end_stream()
        {
            place.waits(false);
        }
    }
}

impl<B: Body + Unpin> Body for Arriving<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match (&polled, &self.place) {
            (Poll::Ready(None), Some(place)) => place.waits(false),
            _ => self.look(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body. At its end the connection waits for its client again.
pub struct Leaving<B> {
    body: B,
    place: Option<Arc<Place>>,
}

impl<B> Leaving<B> {
    pub fn new(body: B, place: Option<Arc<Place>>) -> Self {
        Self { body, place }
    }
}

impl<B: Body + Unpin> Body for Leaving<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Leaving<B> {
    fn drop(&mut self) {
        if let Some(place) = &self.place {
            place.waits(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_oldest_that_waits_of_the_largest_network_makes_room() {
        let places = Places::new(4);
        let client = |host| IpAddr::from([192, 0, 2, host]);
        let alone = places.take(client(1)).await;
        let works = places.take(client(2)).await;
        works.waits(false);
        let older = places.take(client(2)).await;
        let newer = places.take(client(2)).await;
        assert!(places.take(client(3)).now_or_never().is_none(), "full");
        assert!(older.told_to_leave().now_or_never().is_some());
        for other in [&alone, &works, &newer] {
            assert!(other.told_to_leave().now_or_never().is_none());
        }
        assert!(places.take(client(3)).now_or_never().is_none());
        assert!(
            newer.told_to_leave().now_or_never().is_none(),
            "one at a time"
        );
        drop(older);
        let _third = places.take(client(3)).now_or_never().unwrap();
        // A connection that is being served is never told to leave.
        for place in [&alone, &newer, &_third] {
            place.waits(false);
        }
        assert!(places.take(client(4)).now_or_never().is_none());
        assert!(newer.told_to_leave().now_or_never().is_none());
    }
}
