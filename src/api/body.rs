//! Reads the body of a webhook. The signature covers all of it, so the whole body is in memory before its
//! sender is authenticated: how much memory strangers can take is limited here.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::ApiError;
use super::error::Kind;

/// GitHub's own limit for a payload.
const LARGEST: usize = 25 << 20;
/// Nearly every push is smaller. The listener's 2048 connections with a body of this size each are
/// 128 MiB.
const SMALL: usize = 64 << 10;
/// Larger bodies in memory at the same time, 200 MiB in all. Further ones wait.
const LARGE_AT_ONCE: usize = 8;
/// How long a body may take to arrive. Forges need far less.
const TIME: Duration = Duration::from_secs(30);

/// The places for large bodies.
pub struct Bodies(Semaphore);

impl Default for Bodies {
    fn default() -> Self {
        Self(Semaphore::new(LARGE_AT_ONCE))
    }
}

impl Bodies {
    /// Reads the whole body. One whose `Content-Length` is too large is refused unread.
    pub async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
        let length = headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        match length {
            Some(length) if length > LARGEST => return Err(too_long()),
            Some(length) if length <= SMALL => return whole(body, length).await,
            _ => {}
        }
        let Ok(Ok(_place)) = timeout(TIME, self.0.acquire()).await else {
            return Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "too many large bodies are arriving at once",
                "send it again",
            ));
        };
        whole(body, LARGEST).await
    }
}

async fn whole(body: Body, most: usize) -> Result<Bytes, ApiError> {
    let read = timeout(TIME, axum::body::to_bytes(body, most)).await;
    let read = read.map_err(|_| {
        let message = format!("the body did not arrive within {} seconds", TIME.as_secs());
        let hint = "send it again";
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "too_slow", message, hint)
            .refusing(Kind::Malformed)
    })?;
    read.map_err(|error| {
        // The only error besides the length is a connection that broke, where nobody reads this.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        match cause.is::<http_body_util::LengthLimitError>() {
            true => too_long(),
            false => ApiError::bad_request("the connection closed before the whole body arrived")
                .refusing(Kind::Malformed),
        }
    })
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
        let read = Bodies::default().read(headers, Body::from(body)).await;
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
    async fn small_bodies_pass_while_large_ones_wait_for_a_place() {
        let bodies = Bodies::default();
        let taken = bodies.0.acquire_many(LARGE_AT_ONCE as u32).await.unwrap();
        let small = bodies.read(&length(3), Body::from("abc")).await;
        assert_eq!(small.unwrap(), "abc");
        let headers = length(SMALL + 1);
        let mut large = std::pin::pin!(bodies.read(&headers, Body::from("abc")));
        assert!(futures_util::poll!(&mut large).is_pending());
        drop(taken);
        assert_eq!(large.await.unwrap(), "abc");
    }
}
