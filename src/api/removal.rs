//! Remove an app.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::path::{AppPath, known};
use super::responses::{Forbidden, Malformed, UnknownApp};
use super::{ApiError, Shared};
use crate::deploy::removal::{self, Removal};
use crate::principal::{Principal, Role};

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RemovalQuery {
    /// Also remove the app's volumes: those that deploy.toml names, and the containers' anonymous ones.
    #[serde(default)]
    #[param(default = false)]
    volumes: bool,
    /// Report what would be removed, without removing anything.
    #[serde(default)]
    #[param(default = false)]
    dry_run: bool,
}

/// Remove an app
///
/// Removes its containers, its images and its route; its history is kept. An app that is still in
/// deploy.toml comes back with its next deployment.
#[utoipa::path(
    delete,
    path = "/api/v1/apps/{app}",
    operation_id = "removeApp",
    tag = "apps",
    params(AppPath, RemovalQuery),
    responses(
        (status = 200, description = "What would be removed", body = Removal),
        (
            status = 202,
            description = "The removal has begun; a dry run tells when it is over",
            body = Removal,
        ),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 404, response = UnknownApp),
    ),
)]
pub async fn remove(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    Query(query): Query<RemovalQuery>,
) -> Result<(StatusCode, Json<Removal>), ApiError> {
    let app = known(&api, &caller, Role::Admin, &path.app).await?;
    if query.dry_run {
        let removal = removal::of(&api.agent, &app, query.volumes).await?;
        return Ok((StatusCode::OK, Json(removal)));
    }
    let removal = removal::remove(&api.agent, &app, query.volumes, caller.who).await?;
    Ok((StatusCode::ACCEPTED, Json(removal)))
}
