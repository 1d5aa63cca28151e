//! Deploy, roll back, show and cancel.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::error::ErrorBody;
use super::json::NoBody;
use super::path::{AppPath, DeploymentPath, FollowQuery, OnceHeader, acting, find};
use super::responses::{Forbidden, Malformed, NotConfigured, Queued, UnknownDeployment};
use super::view::{self, DeploymentView};
use super::{Api, ApiError, Shared, auth, json, log};
use crate::config::App;
use crate::deploy::follow::Until;
use crate::deploy::rollback::{self, RollbackError, Wish};
use crate::deploy::{cancel as stopping, intake};
use crate::ids::AppName;
use crate::principal::{Principal, Requester, Role};
use crate::source;
use crate::state::State as DeploymentState;
use crate::store::deployments::{Deployment, NewDeployment, Trigger};
use crate::store::idempotency::Once;

/// What to deploy.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeployRequest)]
struct DeployBody {
    /// A branch, tag or commit; the tip of the app's branch if absent.
    #[schema(nullable = false, min_length = 1, max_length = 255, example = "main")]
    r#ref: Option<String>,
    /// Of an app with `image`: another tag or digest of it, or the whole name with one.
    #[schema(nullable = false, min_length = 1, max_length = 255, example = "v2")]
    image: Option<String>,
    /// Build without the cache of earlier images.
    #[serde(default)]
    #[schema(default = false)]
    no_cache: bool,
    /// Ask the registries for newer base images of the same names, and build.
    #[serde(default)]
    #[schema(default = false)]
    pull: bool,
    /// Where the request comes from, for the history; `api` if absent.
    #[schema(nullable = false)]
    trigger: Option<Caller>,
}

/// Who asks for a deployment over the API.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Caller {
    Api,
    Cli,
}

impl Caller {
    pub(super) fn trigger(caller: Option<Self>) -> Trigger {
        match caller {
            None | Some(Caller::Api) => Trigger::Api,
            Some(Caller::Cli) => Trigger::Cli,
        }
    }
}

/// Where a request comes from.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RestartRequest)]
struct RestartBody {
    /// For the history; `api` if absent.
    #[schema(nullable = false)]
    trigger: Option<Caller>,
}

/// Where to go back to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RollbackRequest)]
struct RollbackBody {
    /// An image tag, or the id of a release, a deployment or a commit, of which 7 characters are enough;
    /// `-1`, `-2`: so many releases back. If absent, the same as `-1`.
    #[schema(nullable = false, min_length = 1, max_length = 255)]
    to: Option<String>,
    /// Build and deploy the release's commit again, with the settings of today, instead of starting its
    /// image: for a release whose image is gone.
    #[serde(default)]
    #[schema(default = false)]
    rebuild: bool,
    /// Give the secrets that Cutover keeps the values that they had when the release started; those that
    /// it did not have are unset. Needs the role `admin`.
    #[serde(default)]
    #[schema(default = false)]
    secrets: bool,
}

/// The longest name of a ref, in bytes. Longer ones do not occur in practice.
const LONGEST_NAME: usize = 255;

/// Deploy a branch, tag or commit
///
/// Queues a deployment. Once its commit has been found, it takes the place of a deployment of the same
/// app that is still waiting. With an `Idempotency-Key`, a request that is sent again within a day leads to
/// the same deployment, and the answer says `Idempotent-Replayed: true`.
#[utoipa::path(
    post,
    path = "/api/v1/apps/{app}/deployments",
    operation_id = "deploy",
    tag = "deployments",
    params(
        AppPath,
        FollowQuery,
        OnceHeader,
    ),
    request_body = Option<DeployBody>,
    responses(
        Queued,
        (status = 409, response = NotConfigured),
    ),
)]
pub async fn deploy(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    Query(query): Query<FollowQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let app = acting(&api, &caller, Role::Deploy, &path.app).await?;
    let once = once(&headers, &caller, app.name.as_str(), &body)?;
    let body: DeployBody = json::parse(&body)?;
    let wanted = wanted(&app, body.r#ref, body.image)?;
    let trigger = Caller::trigger(body.trigger);
    let new = NewDeployment {
        no_cache: body.no_cache,
        pull: body.pull,
        ..intake::wished(&app.name, wanted, trigger, caller.who)
    };
    let queued = intake::deployment_once(&api.agent, new, once).await?;
    answer_once(&api, queued, query.until()).await
}

/// The answer to a request that may have come before.
async fn answer_once(
    api: &Api,
    queued: intake::Queued,
    until: Until,
) -> Result<Response, ApiError> {
    let is_replayed = matches!(queued, intake::Queued::Before(_));
    let mut answer = answer(api, deployment(queued)?, until).await?;
    if is_replayed {
        let replayed = HeaderValue::from_static("true");
        answer.headers_mut().insert("idempotent-replayed", replayed);
    }
    Ok(answer)
}

/// What a request led to, now or before.
pub(super) fn deployment(queued: intake::Queued) -> Result<Deployment, ApiError> {
    use intake::Queued::{Before, Joined, New, Refused};
    match queued {
        New(it) | Joined(it) | Before(it) => Ok(it),
        Refused => Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "key_reused",
            "this `Idempotency-Key` came with another request before",
            "use another key for each request",
        )),
    }
}

/// What makes sure that a request is done once, if it asks for it. `what` says, together with the body, which
/// request it is.
fn once(
    headers: &HeaderMap,
    caller: &Principal,
    what: &str,
    body: &[u8],
) -> Result<Option<Once>, ApiError> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = key.to_str().unwrap_or_default();
    let is_good = |key: &str| (1..=255).contains(&key.len());
    if !is_good(key) {
        return Err(ApiError::bad_request(
            "`Idempotency-Key` must have 1 to 255 visible ASCII characters",
        ));
    }
    let request = [what.as_bytes(), b"\n", body].concat();
    Ok(Some(Once {
        holder: caller.who.to_string(),
        key: key.to_owned(),
        request: hex::encode(Sha256::digest(request)),
    }))
}

/// What is to be deployed, if it can be the name of something.
pub(super) fn wanted(
    app: &App,
    git_ref: Option<String>,
    image: Option<String>,
) -> Result<Option<String>, ApiError> {
    let (git_ref, image) = (checked(git_ref, "ref")?, checked(image, "image")?);
    let name = &app.name;
    match (app.image(), git_ref, image) {
        (None, git_ref, None) => revision(git_ref),
        (None, _, Some(_)) => Err(ApiError::bad_request(format!(
            "`{name}` is built from its repository: name a `ref` in place of `image`"
        ))),
        (Some(_), Some(_), _) => Err(ApiError::bad_request(format!(
            "`{name}` has an image in place of a repository: name an `image` in place of `ref`"
        ))),
        (Some(_), None, None) => Ok(None),
        (Some(of), None, Some(text)) => match of.other(&text) {
            Ok(image) => Ok(Some(image.to_string())),
            Err(expected) => Err(ApiError::bad_request(format!(
                "`image` is `{}`: expected {expected}",
                text.escape_debug()
            ))),
        },
    }
}

fn revision(wanted: Option<String>) -> Result<Option<String>, ApiError> {
    // If it were queued, it would take the place of a push that is waiting.
    match wanted.as_deref().map(source::can_be_named) {
        Some(Err(error)) => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            error.code(),
            error.to_string(),
            error.hint(),
        )),
        _ => Ok(wanted),
    }
}

/// Roll back to an earlier release
///
/// Queues a deployment that makes an earlier release live again. An `Idempotency-Key` works as for a deployment.
#[utoipa::path(
    post,
    path = "/api/v1/apps/{app}/rollback",
    operation_id = "rollback",
    tag = "deployments",
    params(AppPath, FollowQuery, OnceHeader),
    request_body = Option<RollbackBody>,
    responses(
        Queued,
        (
            status = 409,
            description = "There is no such release to roll back to",
            body = ErrorBody,
            example = json!({"error": {
                "code": "refused",
                "message": "`hello` has no earlier release to roll back to",
                "hint": "`cutover releases hello` lists them",
            }}),
        ),
    ),
)]
pub async fn rollback(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    Query(query): Query<FollowQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let app = acting(&api, &caller, Role::Deploy, &path.app).await?;
    let what = format!("rollback of {}", app.name);
    let once = once(&headers, &caller, &what, &body)?;
    let body: RollbackBody = json::parse(&body)?;
    if body.secrets {
        // As whoever sets them.
        auth::check(&caller, Role::Admin, &app.name)?;
    }
    let wish = Wish {
        to: checked(body.to, "to")?,
        rebuild: body.rebuild,
        secrets: body.secrets,
    };
    let queued = roll_back(&api, &app.name, wish, caller.who, once).await?;
    answer_once(&api, queued, query.until()).await
}

/// Queues a rollback.
pub(super) async fn roll_back(
    api: &Api,
    app: &AppName,
    wish: Wish,
    by: Requester,
    once: Option<Once>,
) -> Result<intake::Queued, ApiError> {
    let asked = rollback::ask(&api.agent, app, wish, by, once).await;
    asked.map_err(|error| match error {
        RollbackError::Gone { .. } => ApiError::new(
            StatusCode::CONFLICT,
            "image_gone",
            error.to_string(),
            error.hint(),
        ),
        RollbackError::Store(error) => {
            ApiError::from(error).or_hint(format!("`cutover releases {app}` lists them"))
        }
        RollbackError::Engine(error) => error.into(),
    })
}

/// Start the live release again
///
/// Queues a deployment that replaces the live release's instances by new ones of the same image, as a
/// switch does: no request is lost. An `Idempotency-Key` works as for a deployment.
#[utoipa::path(
    post,
    path = "/api/v1/apps/{app}/restart",
    operation_id = "restart",
    tag = "deployments",
    params(AppPath, FollowQuery, OnceHeader),
    request_body = Option<RestartBody>,
    responses(
        Queued,
        (
            status = 409,
            description = "Nothing is live",
            body = ErrorBody,
            example = json!({"error": {
                "code": "refused",
                "message": "`hello` has no live release to start again",
                "hint": "`cutover deploy hello` deploys the app",
            }}),
        ),
    ),
)]
pub async fn restart(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    Query(query): Query<FollowQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let app = acting(&api, &caller, Role::Deploy, &path.app).await?;
    let what = format!("restart of {}", app.name);
    let once = once(&headers, &caller, &what, &body)?;
    let body: RestartBody = json::parse(&body)?;
    let trigger = Caller::trigger(body.trigger);
    let queued = intake::restart(&api.agent, &app.name, trigger, caller.who, once).await;
    let queued = queued.map_err(|error| {
        ApiError::from(error).or_hint(format!("`cutover deploy {}` deploys the app", app.name))
    })?;
    answer_once(&api, queued, query.until()).await
}

fn checked(text: Option<String>, what: &str) -> Result<Option<String>, ApiError> {
    match text {
        Some(text) if text.is_empty() || text.len() > LONGEST_NAME => Err(ApiError::bad_request(
            format!("`{what}` must have 1 to {LONGEST_NAME} characters"),
        )),
        other => Ok(other),
    }
}

/// 202 with the deployment or, if it is followed, its log.
async fn answer(api: &Api, queued: Deployment, until: Until) -> Result<Response, ApiError> {
    if until != Until::Now {
        let id = queued.id.clone();
        let mut response = log::text(api, id, until);
        *response.status_mut() = StatusCode::ACCEPTED;
        return Ok(response);
    }
    let header = [(log::DEPLOYMENT, queued.id.to_string())];
    let shown = view::shown(&api.agent.store, queued).await?;
    Ok((StatusCode::ACCEPTED, header, Json(shown)).into_response())
}

/// Show a deployment
#[utoipa::path(
    get,
    path = "/api/v1/deployments/{id}",
    operation_id = "getDeployment",
    tag = "deployments",
    params(DeploymentPath),
    responses(
        (status = 200, description = "The deployment", body = DeploymentView),
        (status = 400, response = Malformed),
        (status = 404, response = UnknownDeployment),
    ),
)]
pub async fn show(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<DeploymentPath>,
) -> Result<Json<DeploymentView>, ApiError> {
    let found = find(&api, &caller, Role::Read, &path.id).await?;
    let shown = view::shown(&api.agent.store, found).await?;
    Ok(Json(match super::apps::images(&api).await {
        Some(images) => shown.among(&images),
        None => shown,
    }))
}

/// Cancel a deployment
///
/// Possible until the deployment has switched traffic; what it did until then is undone.
#[utoipa::path(
    post,
    path = "/api/v1/deployments/{id}/cancel",
    operation_id = "cancelDeployment",
    tag = "deployments",
    params(DeploymentPath),
    responses(
        (status = 202, description = "The deployment is being undone", body = DeploymentView),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 404, response = UnknownDeployment),
        (
            status = 409,
            description = "The deployment has switched traffic or has ended",
            body = ErrorBody,
            example = json!({"error": {
                "code": "too_late",
                "message": "`d01m5z8k2q4x7a` is live; it can no longer be cancelled",
                "hint": "`cutover rollback hello` goes back to the release before",
            }}),
        ),
    ),
)]
pub async fn cancel(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<DeploymentPath>,
    _: NoBody,
) -> Result<Response, ApiError> {
    let found = find(&api, &caller, Role::Deploy, &path.id).await?;
    let now = cancelled(&api, &found, &caller.who).await?;
    let shown = view::shown(&api.agent.store, now).await?;
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

/// Cancels a deployment; returns it as it is afterwards.
pub(super) async fn cancelled(
    api: &Api,
    found: &Deployment,
    by: &Requester,
) -> Result<Deployment, ApiError> {
    let now = stopping::cancel(&api.agent, &found.id, by)
        .await?
        .ok_or_else(|| ApiError::no_such_deployment(found.id.as_str()))?;
    if stopping::is_too_late(now.state) && now.state != DeploymentState::Cancelled {
        let is_live = !now.state.is_rest() || now.state == DeploymentState::Live;
        let what = match now.state {
            DeploymentState::Failed => "has failed",
            DeploymentState::Superseded => "was superseded",
            DeploymentState::Skipped => "was skipped",
            DeploymentState::RolledBack => "was rolled back",
            DeploymentState::Stuck => "is stuck",
            _ => "is live",
        };
        let message = match is_live {
            true => format!("`{}` {what}; it can no longer be cancelled", now.id),
            false => format!("`{}` {what}; there is nothing left to cancel", now.id),
        };
        let hint = match is_live {
            true => format!(
                "`cutover rollback {}` goes back to the release before",
                now.app
            ),
            false => String::new(),
        };
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "too_late",
            message,
            hint,
        ));
    }
    Ok(now)
}
