//! The secrets that Cutover keeps for an app. Values go in, and never come out.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::deployments::Caller;
use super::error::ErrorBody;
use super::json::NoBody;
use super::page::{NamesQuery, Page};
use super::path::{AppPath, acting, known};
use super::responses::{Forbidden, Malformed, RefusedOfApp, UnknownApp};
use super::view::{self, DeploymentView};
use super::{ApiError, Shared, auth};
use crate::deploy::rekey::{self, Rekeyed};
use crate::deploy::secrets::{self, Change, SecretsError};
use crate::principal::{Principal, Role};
use crate::store::secrets as table;

/// A secret, without its value.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Secret)]
pub struct SecretView {
    #[schema(example = "DATABASE_URL")]
    name: String,
    /// Counts the values that it has had, from 1.
    version: u32,
    #[schema(format = DateTime, example = "2026-05-04T09:30:01.020Z")]
    set_at: String,
    /// Who set it.
    #[schema(example = "token `admin`")]
    set_by: String,
}

/// What to change; all of it or nothing.
// Not `Debug`, so that no value can be logged.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SecretsRequest)]
struct SecretsBody {
    /// Values by name, at most 60 KiB each and 64 KiB together.
    #[serde(default)]
    set: BTreeMap<String, String>,
    /// Names.
    #[serde(default)]
    unset: Vec<String>,
    /// Whether to deploy the live release again, with the new values and without a build; true if
    /// absent.
    #[schema(nullable = false)]
    deploy: Option<bool>,
    /// Where the request comes from, for the history; `api` if absent.
    #[schema(nullable = false)]
    trigger: Option<Caller>,
}

/// What a change did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Changed)]
pub struct ChangedView {
    /// How many have another value than before, or none.
    pub(super) changed: usize,
    /// The deployment that brings them to the app; null if none is needed.
    #[schema(required)]
    pub(super) deployment: Option<DeploymentView>,
}

/// List the secrets of an app
///
/// Their names and versions; no request returns a value.
#[utoipa::path(
    get,
    path = "/api/v1/apps/{app}/secrets",
    operation_id = "listSecrets",
    tag = "apps",
    params(AppPath, NamesQuery),
    responses(
        (status = 200, description = "Secrets of the app, sorted by name", body = Page<SecretView>),
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
) -> Result<Json<Page<SecretView>>, ApiError> {
    let app = known(&api, &caller, Role::Admin, &path.app).await?;
    let all = api.agent.store.read(move |db| table::of_app(db, &app));
    let shown = |secret: table::Secret| SecretView {
        name: secret.name,
        version: secret.version,
        set_at: view::rfc3339(secret.set_at),
        set_by: secret.set_by.map_or(String::new(), |by| by.to_string()),
    };
    let all = all.await?.into_iter().map(shown);
    Ok(Json(Page::by_name(all, query, |it| &it.name)?))
}

/// Change the secrets of an app
///
/// A change is deployed at once unless `deploy` is false: a new release of the live one's image, without
/// a build. Values that do not change cause no deployment.
#[utoipa::path(
    post,
    path = "/api/v1/apps/{app}/secrets",
    operation_id = "changeSecrets",
    tag = "apps",
    params(AppPath),
    request_body = SecretsBody,
    responses(
        RefusedOfApp,
        (status = 200, description = "Changed", body = ChangedView),
        (
            status = 409,
            description = "There is no such secret, or the agent's key cannot be used",
            body = ErrorBody,
            example = json!({"error": {
                "code": "refused",
                "message": "`hello` has no secret `A`: nothing was changed",
                "hint": "`cutover secret list hello` lists them",
            }}),
        ),
    ),
)]
pub async fn change(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    body: Bytes,
) -> Result<Json<ChangedView>, ApiError> {
    let app = acting(&api, &caller, Role::Admin, &path.app).await?;
    let body = parse(&body)?;
    let trigger = Caller::trigger(body.trigger);
    let change = Change {
        set: body.set,
        unset: body.unset,
        deploy: body.deploy.unwrap_or(true),
    };
    let changed = secrets::change(&api.agent, &app.name, change, trigger, caller.who).await;
    let changed = changed.map_err(|error| {
        refused(error).or_hint(format!("`cutover secret list {}` lists them", app.name))
    })?;
    let deployment = view::queued(&api.agent.store, changed.deployment).await?;
    Ok(Json(ChangedView {
        changed: changed.changed,
        deployment,
    }))
}

/// What is wrong with a body is not said in the parser's words, which quote it.
fn parse(body: &Bytes) -> Result<SecretsBody, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!(
            "the body is not what is expected (line {}, column {}): an object such as \
             {{\"set\": {{\"NAME\": \"value\"}}, \"unset\": [\"OTHER\"]}}",
            error.line(),
            error.column()
        ))
    })
}

fn refused(error: SecretsError) -> ApiError {
    match error {
        SecretsError::Wrong(why) => ApiError::bad_request(why),
        SecretsError::Vault(error) => {
            let hint = "the agent's log and `cutover doctor` say more";
            ApiError::new(StatusCode::CONFLICT, "no_key", error.to_string(), hint)
        }
        SecretsError::Store(error) => ApiError::from(error),
    }
}

/// What a new key did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rekeyed)]
pub struct RekeyedView {
    /// How many secrets, of all apps, were encrypted anew.
    secrets: usize,
    /// What to do now.
    #[schema(example = "back up `secrets.key` again, apart from the database")]
    left: String,
}

/// Replace the key of the secrets
///
/// Encrypts every secret of every app with a new key. Values stay the same, and nothing is deployed. A key that
/// systemd hands over is not replaced unless it hands over the next one too.
#[utoipa::path(
    post,
    path = "/api/v1/secrets/rekey",
    operation_id = "rekeySecrets",
    tag = "agent",
    responses(
        (status = 200, description = "Replaced", body = RekeyedView),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (
            status = 409,
            description = "A secret cannot be read with the present key; nothing was changed",
            body = ErrorBody,
            example = json!({"error": {
                "code": "no_key",
                "message": "`A` cannot be decrypted with this key: set it again (`cutover secret set hello A`)",
                "hint": "the agent's log and `cutover doctor` say more",
            }}),
        ),
    ),
)]
pub async fn rekey(
    State(api): Shared,
    caller: Principal,
    _: NoBody,
) -> Result<Json<RekeyedView>, ApiError> {
    auth::check_server(&caller, Role::Admin)?;
    let done = rekey::rekey(&api.agent, Some(caller.who)).await;
    let Rekeyed { secrets, left } = done.map_err(refused)?;
    Ok(Json(RekeyedView { secrets, left }))
}
