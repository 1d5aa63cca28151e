//! The configuration in force: how deploy.toml differs from it, and reloading the file.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::ErrorBody;
use super::json::NoBody;
use super::responses::{Forbidden, Malformed};
use super::view::rfc3339;
use super::{Api, ApiError, Shared, auth};
use crate::config::{self, changes::Change};
use crate::deploy::reload::{self, Reload, ReloadError};
use crate::deploy::{difference, secrets};
use crate::principal::{Principal, Role};
use crate::store::unreached::{self, Unreached};
use crate::store::{StoreError, app_names};

/// The configuration in force, and how deploy.toml differs from it now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Configuration)]
pub struct ConfigurationView {
    /// The file that the agent reads.
    #[schema(example = "/etc/cutover/deploy.toml")]
    file: String,
    /// When it was read last.
    #[schema(format = DateTime, example = "2026-05-04T09:30:00.125Z")]
    loaded_at: String,
    /// What a reload would change; values are not shown.
    differs: Vec<Change>,
    /// Why the file cannot be loaded as it is now, one mistake each.
    mistakes: Vec<String>,
    /// Keys that take effect only when the agent and its proxy are restarted.
    needs_restart: Vec<String>,
    /// Apps that serve although deploy.toml no longer has them.
    lost: Vec<String>,
    /// Apps that the proxy serves but the database does not know: it was lost or restored from an
    /// old copy.
    unrecorded: Vec<String>,
    /// What is allowed but will not work as things are, such as a secret that is not set in the agent's
    /// environment.
    warnings: Vec<String>,
    /// Why secrets that are stored cannot be used, or their key is not safe.
    secrets: Vec<String>,
    /// Receivers of notifications that could not be reached the last time.
    unreached: Vec<UnreachedView>,
    /// Where the file and the agent differ, in one sentence; null if they do not.
    #[schema(required)]
    notice: Option<String>,
}

/// A receiver of notifications that could not be reached the last time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Unreached)]
pub struct UnreachedView {
    /// As in `[notify.NAME]`.
    #[schema(example = "ops")]
    receiver: String,
    /// Why the last message did not arrive.
    #[schema(example = "it answered 404")]
    error: String,
    /// When it began to fail.
    #[schema(format = DateTime, example = "2026-05-04T09:30:00.125Z")]
    since: String,
    /// How many messages wait for it.
    waiting: u64,
}

impl From<Unreached> for UnreachedView {
    fn from(it: Unreached) -> Self {
        Self {
            receiver: it.receiver,
            error: it.error,
            since: rfc3339(it.since),
            waiting: it.waiting,
        }
    }
}

/// The receivers of deploy.toml that could not be reached the last time.
pub async fn unreached(api: &Api) -> Result<Vec<Unreached>, StoreError> {
    let in_force = api.agent.in_force();
    let mut all = api.agent.store.read(unreached::all).await?;
    all.retain(|it| in_force.config.notify.contains_key(&it.receiver));
    Ok(all)
}

/// Compare deploy.toml with the configuration in force
#[utoipa::path(
    get,
    path = "/api/v1/configuration",
    operation_id = "getConfiguration",
    tag = "agent",
    responses(
        (status = 200, description = "The comparison", body = ConfigurationView),
        (status = 403, response = Forbidden),
    ),
)]
pub async fn show(
    State(api): Shared,
    caller: Principal,
) -> Result<Json<ConfigurationView>, ApiError> {
    auth::check_server(&caller, Role::Read)?;
    let difference = difference::difference(&api.agent).await;
    let in_force = api.agent.in_force();
    let in_use = api.agent.store.read(app_names::in_use).await?;
    let lost = in_use
        .into_iter()
        .filter(|name| !in_force.config.apps.contains_key(name));
    let at = in_force
        .loaded
        .at
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let looked = in_force.clone();
    let warnings = tokio::task::spawn_blocking(move || config::warnings(&looked.config));
    Ok(Json(ConfigurationView {
        file: in_force.loaded.path.display().to_string(),
        loaded_at: rfc3339(at.as_millis() as i64),
        differs: difference.changes,
        mistakes: difference.mistakes,
        needs_restart: difference.needs_restart,
        lost: lost.map(String::from).collect(),
        unrecorded: api.agent.unrecorded.apps(),
        warnings: warnings.await.unwrap_or_default(),
        secrets: secrets::problems(&api.agent).await?,
        unreached: (unreached(&api).await?.into_iter())
            .map(UnreachedView::from)
            .collect(),
        notice: difference.notice,
    }))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReloadQuery {
    /// Check the file and report what would change, without changing anything.
    #[serde(default)]
    #[param(default = false)]
    dry_run: bool,
}

/// Reload deploy.toml
///
/// The whole file is checked; if it has a mistake, nothing changes. Listeners, the data folder and the
/// address of Docker take effect only after a restart.
#[utoipa::path(
    post,
    path = "/api/v1/reload",
    operation_id = "reload",
    tag = "agent",
    params(ReloadQuery),
    responses(
        (status = 200, description = "What changed, or would change", body = Reload),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (
            status = 422,
            description = "The file has mistakes; nothing was changed",
            body = ErrorBody,
            example = json!({"error": {
                "code": "configuration",
                "message": "/etc/cutover/deploy.toml:3:1: unknown key `bananas` at the top of the file: \
                            expected one of `agent`, `proxy`, `docker`, `apps`",
                "hint": "nothing was changed",
            }}),
        ),
    ),
)]
pub async fn reload(
    State(api): Shared,
    caller: Principal,
    Query(query): Query<ReloadQuery>,
    _: NoBody,
) -> Result<Json<Reload>, ApiError> {
    auth::check_server(&caller, Role::Admin)?;
    let reload = reload::reload(&api.agent, query.dry_run, caller.who).await;
    reload.map(Json).map_err(|error| match error {
        ReloadError::Wrong(problems) => ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "configuration",
            problems.to_string(),
            "nothing was changed",
        ),
        ReloadError::Store(error) => error.into(),
        ReloadError::Interrupted => ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "interrupted",
            error.to_string(),
            "see the agent's log for details",
        ),
    })
}
