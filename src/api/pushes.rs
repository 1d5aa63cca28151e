//! Pushes to a bare repository on this machine, handed over by its post-receive hook, and what became
//! of every push.

use std::path::PathBuf;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::page::{Page, PageQuery};
use super::path::{AppPath, known};
use super::responses::{Malformed, Refused, UnknownApp};
use super::view::{RequesterView, rfc3339};
use super::{ApiError, Shared, auth, json};
use crate::deploy::intake::{self, Moved, Outcome, Push};
use crate::principal::{Principal, Requester, Role};
use crate::store::moved_refs;

/// A push to a bare repository.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PushRequest)]
struct Pushes {
    /// The absolute path of the bare repository.
    #[schema(value_type = String, example = "/srv/git/hello.git")]
    repository: PathBuf,
    updates: Vec<Update>,
    /// Build without the build cache.
    #[serde(default)]
    #[schema(default = false)]
    no_cache: bool,
    /// Ask the registries for newer base images of the same names, and build.
    #[serde(default)]
    #[schema(default = false)]
    pull: bool,
    /// Record the push, but deploy nothing.
    #[serde(default)]
    #[schema(default = false)]
    skip: bool,
}

/// A ref that the push moved.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PushUpdate)]
struct Update {
    #[schema(example = "refs/heads/main")]
    r#ref: String,
    /// The previous commit; all zeros if the ref is new.
    #[schema(example = "0000000000000000000000000000000000000000")]
    old: String,
    /// The new commit; all zeros if the ref was deleted.
    #[schema(example = "8f3c2a9d41b07e65c1d2f0a8b94e7763d5102c9e")]
    new: String,
}

/// Report a push to a bare repository on this machine
///
/// `hooks/post-receive` calls this. The list has one item for each ref and app.
#[utoipa::path(
    post,
    path = "/api/v1/pushes",
    operation_id = "reportPush",
    tag = "webhooks",
    request_body = Pushes,
    responses(
        (status = 202, description = "What each ref led to", body = Page<Outcome>),
        Refused,
    ),
)]
pub async fn receive(
    State(api): Shared,
    caller: Principal,
    body: Bytes,
) -> Result<(StatusCode, Json<Page<Outcome>>), ApiError> {
    auth::check_role(&caller, Role::Deploy)?;
    let pushes: Pushes = json::parse(&body)?;
    let read = |update: &Update| Moved::read(&update.r#ref, &update.old, &update.new);
    let push = Push {
        repository: pushes.repository,
        refs: pushes.updates.iter().map(read).collect(),
        no_cache: pushes.no_cache,
        pull: pushes.pull,
        skip: pushes.skip,
        by: match &caller.who {
            Requester::Local { uid } => Requester::GitHook { uid: *uid },
            other => other.clone(),
        },
    };
    let outcomes = intake::pushed(&api.agent, push, &caller).await?;
    Ok((StatusCode::ACCEPTED, Json(Page::whole(outcomes))))
}

/// What became of a ref that a push moved.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PushedRef)]
pub struct PushedRef {
    #[schema(example = "m1m8hz3qx458pr")]
    id: String,
    #[schema(format = DateTime)]
    at: String,
    #[schema(example = "refs/heads/main")]
    r#ref: String,
    /// The previous commit; null if the ref is new or the sender did not name it.
    #[schema(required)]
    old: Option<String>,
    /// The new commit; null if the ref was deleted.
    #[schema(required)]
    new: Option<String>,
    /// The webhook's delivery; null if the push came over git.
    #[schema(required)]
    delivery: Option<String>,
    /// The deployment that it led to, or an earlier one that stands for it; null if none does.
    #[schema(required)]
    deployment: Option<String>,
    /// Why it is not deployed, or why an earlier deployment stands for it.
    #[schema(required)]
    reason: Option<String>,
    requested_by: RequesterView,
}

impl From<moved_refs::Recorded> for PushedRef {
    fn from(row: moved_refs::Recorded) -> Self {
        Self {
            at: rfc3339(row.id.created_at()),
            id: row.id.into(),
            r#ref: row.git_ref,
            old: row.old,
            new: row.new,
            delivery: row.delivery,
            deployment: row.deployment,
            reason: row.reason,
            requested_by: row.requested_by.into(),
        }
    }
}

/// List what became of the pushes to an app
///
/// One item for each ref, whether it was deployed or not, newest first; kept for 90 days.
#[utoipa::path(
    get,
    path = "/api/v1/apps/{app}/pushes",
    operation_id = "listPushes",
    tag = "webhooks",
    params(AppPath, PageQuery),
    responses(
        (status = 200, description = "A page of pushed refs", body = Page<PushedRef>),
        (status = 400, response = Malformed),
        (status = 404, response = UnknownApp),
    ),
)]
pub async fn list(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<PushedRef>>, ApiError> {
    let app = known(&api, &caller, Role::Read, &path.app).await?;
    let (limit, cursor, least) = (query.limit()?, query.cursor(), query.least('m')?);
    let rows = (api.agent.store)
        .read(move |db| moved_refs::list(db, &app, cursor.as_deref(), limit + 1))
        .await?;
    let rows = rows.into_iter();
    let rows = rows.take_while(|row| *row.id.as_str() >= *least);
    let items = rows.map(PushedRef::from).collect();
    Ok(Json(Page::new(items, limit, |item: &PushedRef| {
        item.id.clone()
    })))
}
