//! Pin an app to what is live, and put it under maintenance.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::json::NoBody;
use super::path::{AppPath, acting};
use super::responses::{Forbidden, Malformed, NotConfigured, RefusedOfApp, UnknownApp};
use super::view::HeldView;
use super::{ApiError, Shared, json};
use crate::deploy::hold;
use crate::principal::{Principal, Role};
use crate::store::holds::{Held, Hold};

/// The longest text, in characters.
const LONGEST: usize = 500;

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PinRequest)]
struct PinBody {
    /// Why, for those whose push is not deployed.
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 500,
        example = "until Monday"
    )]
    reason: Option<String>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = MaintenanceRequest)]
struct MaintenanceBody {
    /// What visitors read; a short sentence if absent.
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 500,
        example = "Back at noon."
    )]
    message: Option<String>,
    /// End it.
    #[serde(default)]
    #[schema(default = false)]
    off: bool,
}

/// What is put on the app now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Hold)]
pub struct HoldView {
    /// Null if it is not, or no longer, put on it.
    #[schema(required)]
    held: Option<HeldView>,
}

impl From<Option<Held>> for HoldView {
    fn from(held: Option<Held>) -> Self {
        Self {
            held: held.map(HeldView::from),
        }
    }
}

/// One line that may be shown anywhere.
pub(super) fn checked(text: Option<String>, what: &str) -> Result<Option<String>, ApiError> {
    let is_good = |text: &str| {
        !text.trim().is_empty()
            && text.chars().count() <= LONGEST
            && !text.contains(char::is_control)
    };
    match text {
        Some(text) if !is_good(&text) => Err(ApiError::bad_request(format!(
            "`{what}` must be one line of 1 to {LONGEST} characters"
        ))),
        other => Ok(other),
    }
}

/// Pin an app to what is live
///
/// From then on what is pushed is recorded, with this as the reason why it is not deployed; so is a push that
/// is being built, or is waiting, and has not switched. What a person asks for is deployed as before.
#[utoipa::path(
    post,
    path = "/api/v1/apps/{app}/pin",
    operation_id = "pin",
    tag = "apps",
    params(AppPath),
    request_body = Option<PinBody>,
    responses(
        (status = 200, description = "It is pinned", body = HoldView),
        RefusedOfApp,
        (status = 409, response = NotConfigured),
    ),
)]
pub async fn pin(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    body: Bytes,
) -> Result<Json<HoldView>, ApiError> {
    let app = acting(&api, &caller, Role::Deploy, &path.app).await?;
    let body: PinBody = json::parse(&body)?;
    let text = checked(body.reason, "reason")?;
    let held = hold::set(&api.agent, &app.name, Hold::Pin, text, false, caller.who).await?;
    Ok(Json(held.into()))
}

/// Let pushes to an app go live again
///
/// What was pushed meanwhile is not deployed by itself.
#[utoipa::path(
    post,
    path = "/api/v1/apps/{app}/unpin",
    operation_id = "unpin",
    tag = "apps",
    params(AppPath),
    responses(
        (status = 200, description = "It is not pinned any more", body = HoldView),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 404, response = UnknownApp),
        (status = 409, response = NotConfigured),
    ),
)]
pub async fn unpin(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    _: NoBody,
) -> Result<Json<HoldView>, ApiError> {
    let app = acting(&api, &caller, Role::Deploy, &path.app).await?;
    let held = hold::set(&api.agent, &app.name, Hold::Pin, None, true, caller.who).await?;
    Ok(Json(held.into()))
}

/// Put an app under maintenance, or end it
///
/// Its visitors get 503 and the message at once; its instances go on, and what is pushed is deployed.
#[utoipa::path(
    post,
    path = "/api/v1/apps/{app}/maintenance",
    operation_id = "setMaintenance",
    tag = "apps",
    params(AppPath),
    request_body = Option<MaintenanceBody>,
    responses(
        (status = 200, description = "Whether it is under maintenance", body = HoldView),
        RefusedOfApp,
        (status = 409, response = NotConfigured),
    ),
)]
pub async fn maintenance(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    body: Bytes,
) -> Result<Json<HoldView>, ApiError> {
    let app = acting(&api, &caller, Role::Deploy, &path.app).await?;
    let body: MaintenanceBody = json::parse(&body)?;
    let text = checked(body.message, "message")?;
    let hold = Hold::Maintenance;
    let held = hold::set(&api.agent, &app.name, hold, text, body.off, caller.who).await?;
    Ok(Json(held.into()))
}
