//! Who looks at a page.

use axum::extract::FromRequestParts;
use axum::http::{StatusCode, request::Parts};
use subtle::ConstantTimeEq;

use crate::api::ApiError;
use crate::principal::Principal;

/// Somebody who is signed in.
#[derive(Clone)]
pub struct Viewer {
    pub principal: Principal,
    /// What each of their forms carries, so that no other site can send one for them.
    pub csrf: String,
    /// The hash of their session; `None` over the Unix socket.
    pub session: Option<String>,
}

/// Whether a form carries what it was given.
pub fn is_own(given: Option<&str>, wanted: &str) -> bool {
    given.is_some_and(|given| given.as_bytes().ct_eq(wanted.as_bytes()).into())
}

pub fn forged() -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        "forged",
        "this form was not made for your session, so nothing was done",
        "open the page again and press the button there",
    )
}

impl<S: Sync> FromRequestParts<S> for Viewer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or_else(forged)
    }
}
