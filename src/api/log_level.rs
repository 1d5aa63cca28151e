//! What the agent logs, and its proxy.

use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::ErrorBody;
use super::output::seconds;
use super::responses::{Forbidden, Malformed, TooLarge};
use super::view::rfc3339;
use super::{Api, ApiError, Shared, auth, json};
use crate::log_level::{self as level, Change, LONGEST};
use crate::principal::{Principal, Role};
use crate::proxy::control::{self, Wanted};
use crate::store::actions;

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
    /// Whose log it is.
    #[schema(nullable = false, inline, default = "agent")]
    of: Option<Process>,
}

/// Each logs for itself.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Process {
    #[default]
    Agent,
    Proxy,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LevelQuery {
    /// Whose log it is.
    #[param(inline, nullable = false, default = "agent")]
    of: Option<Process>,
}

/// What the agent or the proxy logs.
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
        Self::of(usual, change)
    }

    fn of(usual: String, change: Option<Change>) -> Self {
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

/// Show what the agent or its proxy logs
#[utoipa::path(
    get,
    path = "/api/v1/log-level",
    operation_id = "getLogLevel",
    tag = "agent",
    params(LevelQuery),
    responses(
        (status = 200, description = "The level", body = LevelView),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 503, description = "The proxy does not answer", body = ErrorBody),
    ),
)]
pub async fn show(
    State(api): Shared,
    caller: Principal,
    Query(query): Query<LevelQuery>,
) -> Result<Json<LevelView>, ApiError> {
    auth::check_server(&caller, Role::Admin)?;
    level_of(&api, query.of.unwrap_or_default()).await.map(Json)
}

async fn level_of(api: &Api, of: Process) -> Result<LevelView, ApiError> {
    match of {
        Process::Agent => Ok(LevelView::now()),
        Process::Proxy => of_proxy(api, None).await,
    }
}

/// The proxy's, once it is as wanted.
async fn of_proxy(api: &Api, wanted: Option<Wanted>) -> Result<LevelView, ApiError> {
    let answer = api.agent.proxy.log_level(wanted).await;
    let told = answer.map_err(|error| match error {
        control::Error::Refused(why) => not_changed("proxy", &why),
        error => ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "proxy_unreachable",
            error.to_string(),
            "`cutover doctor` says how the proxy is",
        ),
    })?;
    Ok(LevelView::of(told.usual, told.change))
}

fn not_changed(of: &str, why: &str) -> ApiError {
    let hint = match of {
        "proxy" => "a proxy of an older version has to be replaced first: restart it",
        _ => "set RUST_LOG and restart it",
    };
    ApiError::new(StatusCode::CONFLICT, "not_changed", why, hint)
}

/// Change for a while what the agent or its proxy logs
///
/// Afterwards the usual level applies again, as it does when the process is restarted.
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
            description = "This log cannot be changed as the process runs",
            body = ErrorBody,
        ),
        (status = 413, response = TooLarge),
        (status = 503, description = "The proxy does not answer", body = ErrorBody),
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
    let of = body.of.unwrap_or_default();
    let before = level_of(&api, of).await?.level;
    let detail = serde_json::json!({
        "of": of, "before": before, "after": body.level, "seconds": time.as_secs(),
    });
    let by = caller.who;
    let record = move |db: &_| actions::insert(db, actions::Kind::LogLevel, None, &detail, &by);
    api.agent.store.write(record).await?;
    if let Process::Proxy = of {
        let wanted = Wanted {
            level: body.level,
            for_ms: time.as_millis() as u64,
        };
        return of_proxy(&api, Some(wanted)).await.map(Json);
    }
    if !level::set_for(body.level, time) {
        let why = "this agent's log cannot be changed as it runs";
        return Err(not_changed("agent", why));
    }
    let shown = LevelView::now();
    tracing::info!(
        level = shown.level.as_deref().unwrap_or("usual"),
        "the log's level was changed"
    );
    Ok(Json(shown))
}
