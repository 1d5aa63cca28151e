//! JSON request bodies, which may be absent.

use axum::body::Bytes;
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
