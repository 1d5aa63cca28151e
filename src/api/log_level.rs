//! What the agent logs.

use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::ErrorBody;
use super::output::seconds;
use super::responses::{Forbidden, Malformed, TooLarge};
use super::view::rfc3339;
use super::{ApiError, Shared, auth, json};
use crate::log_level::{self as level, Change, LONGEST};
use crate::principal::{Principal, Role};
use crate::store::{actions, now};

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LogLevelRequest)]
struct LevelBody {
    /// `error`, `warn`, `info`, `debug` or `trace`, or directives such as `cutover::deploy=trace`; the usual one
    /// again if absent.
    #[schema(nullable = false, min_length = 1, max_length = 200, example = "debug")]
    level: Option<String>,
    /// For how long, at most `24h`.
    #[schema(nullable = false, default = "10m", example = "10m")]
    r#for: Option<String>,
}

/// What the agent logs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogLevel)]
pub struct LevelView {
    /// What it logs unless it was told otherwise, as in `RUST_LOG`.
    #[schema(example = "rustls=error,info")]
    usual: String,
    /// What it was told to log; null: the usual.
    #[schema(required, example = "debug")]
    level: Option<String>,
    /// Until when.
    #[schema(required, format = DateTime, example = "2026-05-04T09:30:00.000Z")]
    until: Option<String>,
}

impl LevelView {
    fn now() -> Self {
        let (usual, change) = level::now();
        let (level, until) = change.map(|it| (it.level, rfc3339(it.until))).unzip();
        Self {
            usual,
            level,
            until,
        }
    }
}

/// Logs each request at the level `debug`; without its query, which may hold the code of a link.
pub async fn requests(request: Request, next: Next) -> Response {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return next.run(request).await;
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let began = Instant::now();
    let answer = next.run(request).await;
    let (status, ms) = (answer.status().as_u16(), began.elapsed().as_millis());
    tracing::debug!(%method, path, status, ms, "answered a request");
    answer
}

/// Show what the agent logs
#[utoipa::path(
    get,
    path = "/api/v1/log-level",
    operation_id = "getLogLevel",
    tag = "agent",
    responses(
        (status = 200, description = "The level", body = LevelView),
        (status = 403, response = Forbidden),
    ),
)]
pub async fn show(caller: Principal) -> Result<Json<LevelView>, ApiError> {
    auth::check_server(&caller, Role::Admin)?;
    Ok(Json(LevelView::now()))
}

/// Change for a while what the agent logs
///
/// Of the agent alone, not of the proxy. Afterwards the usual level applies again, as it does when the agent is
/// restarted.
#[utoipa::path(
    post,
    path = "/api/v1/log-level",
    operation_id = "setLogLevel",
    tag = "agent",
    request_body = Option<LevelBody>,
    responses(
        (status = 200, description = "The level", body = LevelView),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (
            status = 409,
            description = "This agent's log cannot be changed as it runs",
            body = ErrorBody,
        ),
        (status = 413, response = TooLarge),
    ),
)]
pub async fn change(
    State(api): Shared,
    caller: Principal,
    body: Bytes,
) -> Result<Json<LevelView>, ApiError> {
    auth::check_server(&caller, Role::Admin)?;
    let body: LevelBody = json::parse(&body)?;
    let text = body.r#for.as_deref().unwrap_or("10m");
    let time = seconds(text).map(|it| Duration::from_secs(it.into()));
    let time = time.filter(|it| (Duration::from_secs(1)..=LONGEST).contains(it));
    let Some(time) = time else {
        let wrong = "`for` must be a number of `s`, `m` or `h`, from 1s to 24h";
        return Err(ApiError::bad_request(wrong));
    };
    if let Some(wanted) = &body.level {
        level::check(wanted).map_err(ApiError::bad_request)?;
    }
    let before = LevelView::now().level;
    let detail =
        serde_json::json!({ "before": before, "after": body.level, "seconds": time.as_secs() });
    let by = caller.who;
    let record = move |db: &_| actions::insert(db, actions::Kind::LogLevel, None, &detail, &by);
    api.agent.store.write(record).await?;
    let is_set = match body.level {
        None => level::set(None),
        Some(wanted) => {
            let until = now() + time.as_millis() as i64;
            let change = Change {
                level: wanted,
                until,
            };
            level::set_for(change, time)
        }
    };
    if !is_set {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "not_changed",
            "this agent's log cannot be changed as it runs",
            "set RUST_LOG and restart it",
        ));
    }
    let shown = LevelView::now();
    tracing::info!(
        level = shown.level.as_deref().unwrap_or("usual"),
        "the log's level was changed"
    );
    Ok(Json(shown))
}
