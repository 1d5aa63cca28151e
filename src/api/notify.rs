//! Trying out who is notified.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::page::Page;
use super::responses::{Forbidden, Malformed, TooLarge};
use super::{ApiError, Shared, auth, json};
use crate::notify;
use crate::principal::{Principal, Role};

/// Whom to send a test.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NotifyTestRequest)]
struct TestBody {
    /// Only this receiver; all of deploy.toml if absent.
    #[schema(nullable = false, example = "ops")]
    receiver: Option<String>,
}

/// What became of a test.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotifyTest)]
pub struct TestView {
    #[schema(example = "ops")]
    receiver: String,
    /// Why it was not told; null if it was.
    #[schema(required)]
    error: Option<String>,
}

/// Send a test notification
///
/// To the receivers in `[notify.NAME]` of deploy.toml; waits for their answers.
#[utoipa::path(
    post,
    path = "/api/v1/notify/test",
    operation_id = "testNotify",
    tag = "agent",
    request_body = Option<TestBody>,
    responses(
        (status = 200, description = "What became of each", body = Page<TestView>),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 413, response = TooLarge),
    ),
)]
pub async fn test(
    State(api): Shared,
    caller: Principal,
    body: Bytes,
) -> Result<Json<Page<TestView>>, ApiError> {
    auth::check_server(&caller, Role::Admin)?;
    let body: TestBody = json::parse(&body)?;
    let told = notify::test(&api.agent, body.receiver.as_deref()).await;
    let told = told.map_err(|error| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not_sent",
            error,
            "see the agent's log",
        )
    })?;
    let Some(told) = told else {
        let name = body.receiver.unwrap_or_default();
        let name = name.escape_debug();
        return Err(ApiError::bad_request(format!(
            "there is no `[notify.{name}]` in deploy.toml"
        )));
    };
    let view = |told: notify::Told| TestView {
        receiver: told.name,
        error: told.error,
    };
    Ok(Json(Page::whole(told.into_iter().map(view).collect())))
}
