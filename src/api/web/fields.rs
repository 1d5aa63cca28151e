//! The fields of a form.

use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Request};
use axum::http::{StatusCode, request::Parts};

use crate::api::{ApiError, SMALL_BODY};

#[derive(Clone, Default)]
pub struct Fields(BTreeMap<String, String>);

impl Fields {
    pub fn parse(text: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(text).into_owned().collect())
    }

    /// Takes the fields out of a request's body.
    pub async fn read(request: Request) -> Result<(Self, Request), ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = to_bytes(body, SMALL_BODY).await.map_err(|_| {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            ApiError::new(status, "too_large", "the form is larger than 64 KiB", "")
        })?;
        let fields = Self::parse(&bytes);
        Ok((fields, Request::from_parts(parts, Body::empty())))
    }

    /// `None` if it is absent or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name).map(|value| value.trim());
        value.filter(|value| !value.is_empty())
    }
}

impl<S: Sync> FromRequestParts<S> for Fields {
    type Rejection = ApiError;

    /// Those of the form, else those of the query.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let sent = parts.extensions.get().cloned();
        let query = parts.uri.query().unwrap_or_default();
        Ok(sent.unwrap_or_else(|| Self::parse(query.as_bytes())))
    }
}
