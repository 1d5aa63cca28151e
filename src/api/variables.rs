//! The variables that Cutover keeps for an app.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::deployments::Caller;
use super::page::{NamesQuery, Page};
use super::path::{AppPath, acting, known};
use super::responses::{Forbidden, Malformed, NotConfigured, TooLarge, UnknownApp};
use super::secrets::ChangedView;
use super::view::{self, rfc3339};
use super::{ApiError, Shared, json};
use crate::deploy::variables::{self, Change};
use crate::principal::{Principal, Role};
use crate::store::variables as table;

/// A variable that is kept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Variable)]
pub struct VariableView {
    #[schema(example = "LOG_LEVEL")]
    name: String,
    #[schema(example = "debug")]
    value: String,
    #[schema(format = DateTime, example = "2026-05-04T09:30:01.020Z")]
    set_at: String,
    /// Who set it.
    #[schema(example = "token `admin`")]
    set_by: String,
}

/// What to change; all of it or nothing.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = VariablesRequest)]
struct VariablesBody {
    /// Values by name, at most 60 KiB each and 64 KiB together.
    #[serde(default)]
    set: BTreeMap<String, String>,
    /// Names.
    #[serde(default)]
    unset: Vec<String>,
    /// Whether to deploy the live release again, without a build; true if absent.
    #[schema(nullable = false)]
    deploy: Option<bool>,
    /// Where the request comes from, for the history; `api` if absent.
    #[schema(nullable = false)]
    trigger: Option<Caller>,
}

/// List the variables that are kept for an app
///
/// They take the place of those of the same name in deploy.toml, which are not listed.
#[utoipa::path(
    get,
    path = "/api/v1/apps/{app}/env",
    operation_id = "listVariables",
    tag = "apps",
    params(AppPath, NamesQuery),
    responses(
        (status = 200, description = "Variables, sorted by name", body = Page<VariableView>),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 404, response = UnknownApp),
    ),
)]
pub async fn list(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    Query(query): Query<NamesQuery>,
) -> Result<Json<Page<VariableView>>, ApiError> {
    let app = known(&api, &caller, Role::Deploy, &path.app).await?;
    let all = api.agent.store.read(move |db| table::of_app(db, &app));
    let shown = all.await?.into_iter().map(|it| VariableView {
        name: it.name,
        value: it.value,
        set_at: rfc3339(it.set_at),
        set_by: it.set_by.map_or(String::new(), |by| by.to_string()),
    });
    Ok(Json(Page::by_name(shown, query, |it| &it.name)?))
}

/// Change the variables that are kept for an app
///
/// A change is deployed at once unless `deploy` is false: a new release of the live one's image, without
/// a build. A rollback brings back the values of then.
#[utoipa::path(
    post,
    path = "/api/v1/apps/{app}/env",
    operation_id = "changeVariables",
    tag = "apps",
    params(AppPath),
    request_body = Option<VariablesBody>,
    responses(
        (status = 200, description = "Changed", body = ChangedView),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 404, response = UnknownApp),
        (status = 409, response = NotConfigured),
        (status = 413, response = TooLarge),
    ),
)]
pub async fn change(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    body: Bytes,
) -> Result<Json<ChangedView>, ApiError> {
    let app = acting(&api, &caller, Role::Deploy, &path.app).await?;
    let body: VariablesBody = json::parse(&body)?;
    let trigger = Caller::trigger(body.trigger);
    let change = Change {
        set: body.set,
        unset: body.unset,
        deploy: body.deploy.unwrap_or(true),
    };
    let changed = variables::change(&api.agent, &app.name, change, trigger, caller.who).await;
    let (changed, queued) = changed.map_err(|error| {
        ApiError::from(error).or_hint(format!("`cutover env list {}` lists them", app.name))
    })?;
    let deployment = view::queued(&api.agent.store, queued).await?;
    Ok(Json(ChangedView {
        changed,
        deployment,
    }))
}
