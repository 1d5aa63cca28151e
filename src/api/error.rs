//! Errors of the API: `{"error": {"code", "message", "hint"}}`.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::SMALL_BODY;
use crate::engine::EngineError;
use crate::log_limit::limited;
use crate::store::StoreError;

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// A stable identifier for programs.
    #[schema(example = "unknown_app")]
    code: &'static str,
    /// What went wrong, in one sentence.
    #[schema(example = "there is no app `helo`")]
    message: String,
    /// What to do about it; empty if there is nothing more to say.
    #[schema(example = "`cutover status` lists the apps")]
    hint: String,
}

/// Why a request is refused, as a response extension. Each kind is logged on its own lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Signature,
    Malformed,
    TooLarge,
    UnknownApp,
    Network,
    Token,
    GitToken,
    /// Not a refusal by itself: the agent cannot read a secret.
    Secret,
}

/// What a client is told about an error. The cause of an internal error is logged and never sent.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    detail: ErrorDetail,
    refused: Option<Kind>,
}

impl ApiError {
    pub fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let detail = ErrorDetail {
            code,
            message: message.into(),
            hint: hint.into(),
        };
        Self {
            status,
            detail,
            refused: None,
        }
    }

    /// Marks this error as a refusal of this kind, to be counted and logged.
    pub fn refusing(self, kind: Kind) -> Self {
        Self {
            refused: Some(kind),
            ..self
        }
    }

    pub fn no_such_app(name: &str) -> Self {
        let message = format!("there is no app `{}`", name.escape_debug());
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_app",
            message,
            "it is neither in deploy.toml nor in the database; `cutover status` lists the apps",
        )
    }

    pub fn no_such_deployment(id: &str) -> Self {
        let message = format!("there is no deployment `{}`", id.escape_debug());
        let hint = "`cutover deployments APP` lists the deployments of an app";
        Self::new(StatusCode::NOT_FOUND, "unknown_deployment", message, hint)
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn message(&self) -> &str {
        &self.detail.message
    }

    pub fn hint(&self) -> &str {
        &self.detail.hint
    }

    pub fn kind(&self) -> Option<Kind> {
        self.refused
    }

    /// Sets the hint if there is none yet.
    pub fn or_hint(mut self, hint: String) -> Self {
        if self.detail.hint.is_empty() {
            self.detail.hint = hint;
        }
        self
    }

    /// Puts this in the place of the hint, unless it is empty.
    pub fn but_hint(mut self, hint: String) -> Self {
        if !hint.is_empty() {
            self.detail.hint = hint;
        }
        self
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad_request",
            message,
            "see /api/v1/openapi.json",
        )
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(why) => Self::new(StatusCode::CONFLICT, "refused", why, ""),
            other => {
                limited!(
                    error,
                    "a request to the database failed",
                    error = %other,
                    "a request to the database failed"
                );
                let message = "the request cannot be stored at the moment";
                let hint = "try again; see the agent's log";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_stored", message, hint)
            }
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            other => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "docker",
                other.to_string(),
                "`cutover doctor` says whether Docker answers",
            ),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody { error: self.detail };
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some(kind) = self.refused {
            response.extensions_mut().insert(kind);
        }
        response
    }
}

/// Converts errors that axum itself returns (an invalid path or query, a body that is too large) to our
/// format. Pages stay pages.
pub async fn shaped(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_shaped = kind.is_some_and(|kind| {
        kind == "application/json" || kind.as_bytes().starts_with(b"text/html")
    });
    if !status.is_client_error() || is_shaped {
        return response;
    }
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        let message = format!("the request body is larger than {} KiB", SMALL_BODY >> 10);
        return ApiError::new(status, "too_large", message, "").into_response();
    }
    let text = axum::body::to_bytes(response.into_body(), 4 << 10).await;
    let message = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    let hint = "see /api/v1/openapi.json";
    ApiError::new(status, "bad_request", message, hint).into_response()
}

pub async fn not_found() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing at this path",
        "see /api/v1/openapi.json",
    )
}

pub async fn method_not_allowed() -> ApiError {
    let message = "this path does not support this method";
    let hint = "see /api/v1/openapi.json";
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
        hint,
    )
}
