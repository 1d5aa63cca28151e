//! Stop and start an app.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::deployments::Caller;
use super::json::NoBody;
use super::path::{AppPath, acting};
use super::responses::{Forbidden, Malformed, NotConfigured, TooLarge, UnknownApp};
use super::view::{self, DeploymentView};
use super::{ApiError, Shared, json};
use crate::deploy::stop as stopping;
use crate::principal::{Principal, Role};

/// Where a request comes from.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StartRequest)]
struct StartBody {
    /// For the history; `api` if absent.
    #[schema(nullable = false)]
    trigger: Option<Caller>,
}

/// Whether an app is stopped.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IsStopped)]
pub struct StoppedView {
    stopped: bool,
}

/// What starting an app did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Started)]
pub struct StartedView {
    /// The deployment of what was live; null if the app was not stopped, or nothing was live.
    #[schema(required)]
    deployment: Option<DeploymentView>,
}

/// Stop an app
///
/// Its visitors get 503 at once; its instances finish their requests and are stopped. It stays stopped
/// until it is started: what is pushed meanwhile waits, and nothing is scheduled.
#[utoipa::path(
    post,
    path = "/api/v1/apps/{app}/stop",
    operation_id = "stop",
    tag = "apps",
    params(AppPath),
    responses(
        (status = 200, description = "It is stopped", body = StoppedView),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 404, response = UnknownApp),
        (status = 409, response = NotConfigured),
    ),
)]
pub async fn stop(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    _: NoBody,
) -> Result<Json<StoppedView>, ApiError> {
    let app = acting(&api, &caller, Role::Deploy, &path.app).await?;
    stopping::stop(&api.agent, &app.name, caller.who).await?;
    Ok(Json(StoppedView { stopped: true }))
}

/// Start an app that was stopped
#[utoipa::path(
    post,
    path = "/api/v1/apps/{app}/start",
    operation_id = "start",
    tag = "apps",
    params(AppPath),
    request_body = Option<StartBody>,
    responses(
        (status = 200, description = "It is not stopped any more", body = StartedView),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 404, response = UnknownApp),
        (status = 409, response = NotConfigured),
        (status = 413, response = TooLarge),
    ),
)]
pub async fn start(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    body: Bytes,
) -> Result<Json<StartedView>, ApiError> {
    let app = acting(&api, &caller, Role::Deploy, &path.app).await?;
    let body: StartBody = json::parse(&body)?;
    let trigger = Caller::trigger(body.trigger);
    let queued = stopping::start(&api.agent, &app.name, trigger, caller.who).await?;
    let deployment = view::queued(&api.agent.store, queued).await?;
    Ok(Json(StartedView { deployment }))
}
