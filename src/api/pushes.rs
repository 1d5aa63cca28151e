//! Pushes to a bare repository on this machine, handed over by its post-receive hook.

use std::path::PathBuf;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::page::Page;
use super::responses::{Forbidden, Malformed, TooLarge};
use super::{ApiError, Shared, auth, json};
use crate::deploy::intake::{self, Moved, Outcome, Push};
use crate::principal::{Principal, Requester, Role};

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
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 413, response = TooLarge),
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
        skip: pushes.skip,
        by: match &caller.who {
            Requester::Local { uid } => Requester::GitHook { uid: *uid },
            other => other.clone(),
        },
    };
    let outcomes = intake::pushed(&api.agent, push, &caller).await?;
    Ok((StatusCode::ACCEPTED, Json(Page::whole(outcomes))))
}
