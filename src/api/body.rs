//! Reads the body of a webhook. The signature covers the whole body, so all of it is in memory before
//! its sender is authenticated: how much memory unauthenticated senders can use is limited here. What
//! counts is what has arrived, not what was announced, and one client's network gets at most half of
//! the memory, so nobody can keep others out by sending slowly.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::ApiError;
use super::error::Kind;
use crate::proxy::network_of;

/// GitHub's own limit for a payload.
const LARGEST: usize = 25 << 20;
/// In bytes; nearly every push is smaller. The listener's 2048 connections with a body of this size
/// each use 128 MiB.
const SMALL: usize = 64 << 10;
/// How much of the larger bodies may be in memory at the same time, in KiB. Further bytes wait.
const LARGE_KIB: usize = 200 << 10;
/// The same for one client's network.
const OF_NETWORK_KIB: usize = LARGE_KIB / 2;
/// How long a body may take to arrive. Forges need far less.
const TIME: Duration = Duration::from_secs(30);

/// The memory for larger bodies.
pub struct Bodies {
    all: Arc<Semaphore>,
    /// The networks that hold some of it now.
    networks: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

impl Default for Bodies {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(LARGE_KIB)),
            networks: Mutex::default(),
        }
    }
}

impl Bodies {
    /// Reads the whole body. A body whose `Content-Length` is too large is refused unread.
    pub async fn read(
        &self,
        client: Option<IpAddr>,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Bytes, ApiError> {
        let length = headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > LARGEST) {
            return Err(too_long());
        }
        let mut held = Held {
            all: self.all.clone(),
            network: client.map(|client| self.of_network(network_of(client))),
            permits: Vec::new(),
            waits: false,
        };
        let read = timeout(TIME, whole(body, &mut held)).await;
        read.unwrap_or_else(|_| Err(if held.waits { busy() } else { too_slow() }))
    }

    fn of_network(&self, network: IpAddr) -> Arc<Semaphore> {
        let mut networks = self.networks.lock();
        networks.retain(|_, held| held.strong_count() > 0);
        if let Some(held) = networks.get(&network).and_then(Weak::upgrade) {
            return held;
        }
        let held = Arc::new(Semaphore::new(OF_NETWORK_KIB));
        networks.insert(network, Arc::downgrade(&held));
        held
    }
}

/// The memory that one larger body holds.
struct Held {
    all: Arc<Semaphore>,
    network: Option<Arc<Semaphore>>,
    permits: Vec<OwnedSemaphorePermit>,
    /// Whether it waits for memory and not for its sender.
    waits: bool,
}

impl Held {
    async fn take(&mut self, kib: u32) {
        self.waits = true;
        for semaphore in self.network.iter().chain([&self.all]) {
            // The semaphores are never closed.
            self.permits
                .extend(semaphore.clone().acquire_many_owned(kib).await);
        }
        self.waits = false;
    }
}

async fn whole(mut body: Body, held: &mut Held) -> Result<Bytes, ApiError> {
    let mut bytes = Vec::new();
    let mut paid = SMALL;
    while let Some(frame) = body.frame().await {
        // The connection is broken, so nobody reads this message.
        let broken = "the connection closed before the whole body arrived";
        let frame = frame.map_err(|_| ApiError::bad_request(broken).refusing(Kind::Malformed))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let size = bytes.len() + data.len();
        if size > LARGEST {
            return Err(too_long());
        }
        if size > paid {
            let kib = (size - paid).div_ceil(1024);
            held.take(kib as u32).await;
            paid += kib * 1024;
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}

fn busy() -> ApiError {
    let message = "too many large bodies are arriving at once";
    let status = StatusCode::SERVICE_UNAVAILABLE;
    ApiError::new(status, "busy", message, "send it again")
}

fn too_slow() -> ApiError {
    let message = format!("the body did not arrive within {} seconds", TIME.as_secs());
    let status = StatusCode::REQUEST_TIMEOUT;
    ApiError::new(status, "too_slow", message, "send it again").refusing(Kind::Malformed)
}

fn too_long() -> ApiError {
    let message = "the body is larger than 25 MiB";
    let hint = "no forge sends payloads of this size";
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message, hint)
        .refusing(Kind::TooLarge)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    async fn status(headers: &HeaderMap, body: Vec<u8>) -> Result<usize, StatusCode> {
        let read = Bodies::default()
            .read(None, headers, Body::from(body))
            .await;
        read.map(|bytes| bytes.len())
            .map_err(|error| error.into_response().status())
    }

    fn length(bytes: usize) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_LENGTH, bytes.to_string().parse().unwrap())])
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_the_limit_and_no_further() {
        for bytes in [0, 1, SMALL, SMALL + 1, LARGEST] {
            assert_eq!(status(&length(bytes), vec![b'x'; bytes]).await, Ok(bytes));
            assert_eq!(
                status(&HeaderMap::new(), vec![b'x'; bytes]).await,
                Ok(bytes)
            );
        }
        let too_large = Err(StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(status(&length(LARGEST + 1), vec![]).await, too_large);
        assert_eq!(
            status(&HeaderMap::new(), vec![b'x'; LARGEST + 1]).await,
            too_large
        );
    }

    #[tokio::test]
    async fn only_what_arrives_takes_memory_and_no_network_takes_all() {
        let bodies = Bodies::default();
        let (one, other): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let half = bodies.of_network(one);
        let taken = half.clone().acquire_many_owned(OF_NETWORK_KIB as u32);
        let taken = taken.await.unwrap();
        let (small, large) = (vec![b'x'; SMALL], vec![b'x'; SMALL + 1]);
        let read = async |client, bytes: &[u8]| {
            let headers = length(bytes.len());
            let read = bodies.read(Some(client), &headers, Body::from(bytes.to_vec()));
            read.await.unwrap().len()
        };
        assert_eq!(read(one, &small).await, SMALL);
        assert_eq!(read(other, &large).await, large.len());
        let mut waits = std::pin::pin!(read(one, &large));
        assert!(futures_util::poll!(&mut waits).is_pending());
        drop(taken);
        assert_eq!(waits.await, large.len());
        assert_eq!(bodies.all.available_permits(), LARGE_KIB);
        drop(half);
        bodies.of_network(other);
        assert_eq!(
            bodies.networks.lock().len(),
            1,
            "who holds nothing is forgotten"
        );
    }
}
