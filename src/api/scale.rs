//! How many instances an app has.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::deployments::Caller;
use super::path::{AppPath, acting};
use super::responses::{Malformed, NotConfigured, RefusedOfApp, UnknownApp};
use super::view::{self, DeploymentView};
use super::{ApiError, Shared, json};
use crate::deploy::scale;
use crate::principal::{Principal, Role};

/// How many instances to run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ScaleRequest)]
struct ScaleBody {
    /// From 1 to 100; null, or absent: as deploy.toml says.
    #[schema(minimum = 1, maximum = 100)]
    replicas: Option<u32>,
    /// Where the request comes from, for the history; `api` if absent.
    #[schema(nullable = false)]
    trigger: Option<Caller>,
}

/// How many instances an app is to have.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Scale)]
pub struct ScaleView {
    /// What was asked for; null: as deploy.toml says.
    #[schema(required)]
    replicas: Option<u32>,
    /// What deploy.toml says.
    configured: u32,
    /// The deployment that a change has queued.
    #[schema(required)]
    deployment: Option<DeploymentView>,
}

/// Show how many instances an app is to have
#[utoipa::path(
    get,
    path = "/api/v1/apps/{app}/scale",
    operation_id = "getScale",
    tag = "apps",
    params(AppPath),
    responses(
        (status = 200, description = "The scale", body = ScaleView),
        (status = 400, response = Malformed),
        (status = 404, response = UnknownApp),
        (status = 409, response = NotConfigured),
    ),
)]
pub async fn show(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
) -> Result<Json<ScaleView>, ApiError> {
    let app = acting(&api, &caller, Role::Read, &path.app).await?;
    Ok(Json(ScaleView {
        replicas: scale::asked(&api.agent, &app).await?,
        configured: app.run.replicas,
        deployment: None,
    }))
}

/// Scale an app
///
/// The number is kept through deployments. If the live release has another, a deployment replaces its
/// instances by as many.
#[utoipa::path(
    post,
    path = "/api/v1/apps/{app}/scale",
    operation_id = "scale",
    tag = "apps",
    params(AppPath),
    request_body = Option<ScaleBody>,
    responses(
        (status = 200, description = "The new scale", body = ScaleView),
        RefusedOfApp,
        (status = 409, response = NotConfigured),
    ),
)]
pub async fn change(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    body: Bytes,
) -> Result<Json<ScaleView>, ApiError> {
    let app = acting(&api, &caller, Role::Deploy, &path.app).await?;
    let body: ScaleBody = json::parse(&body)?;
    if body.replicas.is_some_and(|it| !(1..=100).contains(&it)) {
        return Err(ApiError::bad_request("`replicas` must be from 1 to 100"));
    }
    let trigger = Caller::trigger(body.trigger);
    let queued = scale::scale(&api.agent, &app, body.replicas, trigger, caller.who).await?;
    let deployment = match queued {
        Some(queued) => {
            let shown = (api.agent.store).read(move |db| view::deployment(db, queued));
            Some(shown.await?)
        }
        None => None,
    };
    Ok(Json(ScaleView {
        replicas: body.replicas,
        configured: app.run.replicas,
        deployment,
    }))
}
