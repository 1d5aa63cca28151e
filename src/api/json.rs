//! Bodies that may be absent, and errors in ours.

use axum::body::Bytes;
use serde::de::DeserializeOwned;

use super::ApiError;

/// An empty body is an empty object; an unknown key is an error, since it is a typing mistake.
pub fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    let text: &[u8] = if body.trim_ascii().is_empty() {
        b"{}"
    } else {
        body
    };
    serde_json::from_slice(text)
        .map_err(|e| ApiError::bad_request(format!("the body is wrong: {e}")))
}
