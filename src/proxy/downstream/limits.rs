//! How long a client may take, and how many connections may be open, in total and for one client.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::proxy::watch::now_ms;

/// How long a client may take, in milliseconds, and how much it may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte of a head to its last one.
    pub head_ms: u64,
    /// Between two requests, and before the first one.
    pub idle_ms: u64,
    /// To read any part of a response.
    pub write_ms: u64,
    /// How long the head of a request may be, in bytes.
    pub head: usize,
}

/// What a client is counted by: its IPv4 address, even if mapped to IPv6, or its IPv6 /64, since
/// whoever has one address of a /64 usually has all of them (RFC 4291, 2.5.4).
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

/// Counts the open connections.
#[derive(Default)]
pub struct Places {
    max: usize,
    max_per_client: usize,
    taken: AtomicUsize,
    /// When room was last made, in [`now_ms`] time.
    room_made: AtomicU64,
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

    /// How many idle connections should be closed to make room for others: some when few places are
    /// left, at most once a sweep.
    pub fn scarce(&self) -> Option<usize> {
        let scarce = self.taken() >= self.max - self.max / 16;
        let now = now_ms();
        let due = scarce && self.room_made.swap(now, Relaxed) != now;
        due.then_some((self.max / 32).max(1))
    }

    /// A place for a connection whose client is not known yet. `None`: the limit is reached.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let place = Place(self.clone(), None);
        (self.taken.fetch_add(1, Relaxed) < self.max).then_some(place)
    }
}

/// One connection, counted for as long as its socket is open, even as a WebSocket.
pub struct Place(Arc<Places>, Option<IpAddr>);

impl Place {
    /// Counts the connection as one of `client`'s. False if the client has as many as it may have.
    pub fn is_of(&mut self, client: IpAddr) -> bool {
        let client = network_of(client);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(clients: &[&str]) -> Vec<bool> {
        let places = Places::new(100, 2);
        let mut held: Vec<_> = clients.iter().map(|_| places.take().unwrap()).collect();
        let address = |client: &&str| client.parse().unwrap();
        let pairs = held.iter_mut().zip(clients.iter().map(address));
        pairs.map(|(place, client)| place.is_of(client)).collect()
    }

    #[test]
    fn one_ipv6_client_is_its_64_and_one_ipv4_client_its_address() {
        let six = [
            "2001:db8::1",
            "2001:db8::2",
            "2001:db8::3",
            "2001:db8:0:1::3",
        ];
        assert_eq!(counts(&six), [true, true, false, true]);
        let four = [
            "192.0.2.1",
            "::ffff:192.0.2.1",
            "192.0.2.1",
            "::ffff:192.0.2.2",
        ];
        assert_eq!(counts(&four), [true, true, false, true]);
    }
}
