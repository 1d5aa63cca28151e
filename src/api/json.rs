//! JSON request bodies, which may be absent.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ApiError;

/// Parses a body; none, or `null`, counts as an empty object. An unknown key is an error, because it is
/// probably a typing mistake.
pub fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    let text = match body.trim_ascii() {
        b"" | b"null" => b"{}",
        text => text,
    };
    // serde reads an array as a list of fields.
    if !text.starts_with(b"{") {
        return Err(ApiError::bad_request(
            "invalid request body: it must be a JSON object, such as `{}`",
        ));
    }
    serde_json::from_slice(text)
        .map_err(|e| ApiError::bad_request(format!("invalid request body: {e}")))
}

/// The body of a request that takes none: absent, or an object without keys. Whoever sends anything else
/// means something that would not be done.
pub struct NoBody;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|error| ApiError::bad_request(error.body_text()))?;
        parse::<Nothing>(&body).map(|Nothing {}| Self)
    }
}
