//! How many instances an app has.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::deployments::Caller;
use super::path::{AppPath, acting};
use super::responses::{Malformed, NotConfigured, RefusedOfApp, UnknownApp};
use super::view::{self, DeploymentView};
use super::{Api, ApiError, Shared, json};
use crate::config::App;
use crate::deploy::scale;
use crate::ids::{InvalidId, ServiceName};
use crate::principal::{Principal, Role};

/// How many instances to run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ScaleRequest)]
struct ScaleBody {
    /// Of `web`, from 1 to 100; null, or absent without `processes`: as deploy.toml says.
    #[schema(minimum = 1, maximum = 100)]
    replicas: Option<u32>,
    /// Of each process by name, `web` too; from 0 to 100, null: as deploy.toml says.
    #[serde(default)]
    processes: BTreeMap<String, Option<u32>>,
    /// Where the request comes from, for the history; `api` if absent.
    #[schema(nullable = false)]
    trigger: Option<Caller>,
}

/// How many instances an app is to have.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Scale)]
pub struct ScaleView {
    /// What was asked for, of `web`; null: as deploy.toml says.
    #[schema(required)]
    replicas: Option<u32>,
    /// What deploy.toml says of `web`; 0 for an app that takes no requests.
    configured: u32,
    /// The same of each process, `web` included.
    processes: Vec<ProcessScale>,
    /// The deployment that a change has queued.
    #[schema(required)]
    deployment: Option<DeploymentView>,
}

/// How many instances a process is to have.
#[derive(Debug, Serialize, ToSchema)]
struct ProcessScale {
    #[schema(example = "worker")]
    name: String,
    /// What was asked for; null: as deploy.toml says.
    #[schema(required)]
    replicas: Option<u32>,
    /// What deploy.toml says; 1 for a process of a Procfile.
    configured: u32,
}

impl ScaleView {
    async fn of(
        api: &Api,
        app: &App,
        deployment: Option<DeploymentView>,
    ) -> Result<Self, ApiError> {
        let all = scale::of(&api.agent, app).await?;
        let web = all.iter().find(|it| it.service == ServiceName::web());
        Ok(Self {
            replicas: web.and_then(|it| it.asked),
            configured: web.map_or(0, |it| it.configured),
            processes: (all.iter())
                .map(|it| ProcessScale {
                    name: it.service.to_string(),
                    replicas: it.asked,
                    configured: it.configured,
                })
                .collect(),
            deployment,
        })
    }
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
    Ok(Json(ScaleView::of(&api, &app, None).await?))
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
    let trigger = Caller::trigger(body.trigger);
    let wanted = wanted(body.replicas, body.processes)?;
    let queued = scale::scale(&api.agent, &app, wanted, trigger, caller.who).await?;
    let deployment = view::queued(&api.agent.store, queued).await?;
    Ok(Json(ScaleView::of(&api, &app, deployment).await?))
}

pub(super) fn wanted(
    web: Option<u32>,
    processes: BTreeMap<String, Option<u32>>,
) -> Result<BTreeMap<ServiceName, Option<u32>>, ApiError> {
    let mut wanted = BTreeMap::new();
    for (name, replicas) in processes {
        let name: ServiceName = name
            .parse()
            .map_err(|error: InvalidId| ApiError::bad_request(error.to_string()))?;
        wanted.insert(name, replicas);
    }
    if web.is_some() || wanted.is_empty() {
        wanted.insert(ServiceName::web(), web);
    }
    for (name, replicas) in &wanted {
        let least = u32::from(*name == ServiceName::web());
        if replicas.is_some_and(|it| !(least..=100).contains(&it)) {
            let message =
                format!("the number of instances of `{name}` must be from {least} to 100");
            return Err(ApiError::bad_request(message));
        }
    }
    Ok(wanted)
}
