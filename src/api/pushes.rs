//! Pushes to a bare repository on this machine, handed over by its post-receive hook.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::page::Page;
use super::responses::{Malformed, TooLarge};
use super::{Api, ApiError, Shared, json};
use crate::config::{App, Repo};
use crate::deploy::{filter, intake};
use crate::ids::{AppName, CommitId, DeploymentId};
use crate::source;
use crate::store::deployments::NewDeployment;
use crate::webhook::Ref;

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
}

/// A ref that the push moved.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PushUpdate)]
struct Update {
    #[schema(example = "refs/heads/main")]
    r#ref: String,
    /// The previous commit; all zeros if the ref is new.
    #[serde(rename = "old")]
    #[schema(example = "0000000000000000000000000000000000000000")]
    _old: String,
    /// The new commit; all zeros if the ref was deleted.
    #[schema(example = "8f3c2a9d41b07e65c1d2f0a8b94e7763d5102c9e")]
    new: String,
}

/// What a pushed ref led to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PushResult)]
pub struct Taken {
    r#ref: String,
    /// The app that deploys from this repository; null if there is none.
    #[schema(value_type = Option<String>, required)]
    app: Option<AppName>,
    /// The id of the queued deployment; null if there is nothing to deploy.
    #[schema(value_type = Option<String>, required)]
    deployment: Option<DeploymentId>,
    /// Why there is nothing to deploy.
    #[schema(required)]
    reason: Option<String>,
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
        (status = 202, description = "What each ref led to", body = Page<Taken>),
        (status = 400, response = Malformed),
        (status = 413, response = TooLarge),
    ),
)]
pub async fn receive(
    State(api): Shared,
    body: Bytes,
) -> Result<(StatusCode, Json<Page<Taken>>), ApiError> {
    let pushes: Pushes = json::parse(&body)?;
    let mut items = Vec::new();
    for update in &pushes.updates {
        let apps = apps_of(&api, &pushes.repository);
        if apps.is_empty() {
            let path = pushes.repository.display();
            let reason = format!("no app in deploy.toml has `repo = \"{path}\"`");
            items.push(Taken::nothing(update, None, reason));
        }
        for app in apps {
            items.push(take(&api, &app, &pushes, update).await?);
        }
    }
    Ok((StatusCode::ACCEPTED, Json(Page::whole(items))))
}

async fn take(api: &Api, app: &App, pushes: &Pushes, update: &Update) -> Result<Taken, ApiError> {
    let nothing = |reason: String| Ok(Taken::nothing(update, Some(&app.name), reason));
    let git_ref = Ref::parse(&update.r#ref).map_err(|e| ApiError::bad_request(e.to_string()))?;
    let Some(git_ref) = git_ref else {
        return nothing("it is neither a branch nor a tag".into());
    };
    if let Err(why) = filter::wants_ref(app, &git_ref) {
        return nothing(why);
    }
    if update.new.bytes().all(|byte| byte == b'0') {
        return nothing(format!(
            "the {git_ref} was deleted; the live release keeps serving"
        ));
    }
    let commit: CommitId = match update.new.parse() {
        Ok(commit) => commit,
        Err(error) => return nothing(format!("{error}")),
    };
    let (path, head) = (pushes.repository.clone(), commit.clone());
    let read = tokio::task::spawn_blocking(move || source::message(&path, &head));
    let message = read.await.ok().flatten().unwrap_or_default();
    if let Err(why) = filter::wants_message(&message) {
        return nothing(why);
    }
    let new = NewDeployment {
        no_cache: pushes.no_cache,
        ..intake::pushed(&app.name, &update.r#ref, commit)
    };
    let queued = intake::deployment(&api.agent, new).await?;
    Ok(Taken {
        r#ref: update.r#ref.clone(),
        app: Some(app.name.clone()),
        deployment: Some(queued.id),
        reason: None,
    })
}

impl Taken {
    fn nothing(update: &Update, app: Option<&AppName>, reason: String) -> Self {
        let r#ref = update.r#ref.clone();
        Self {
            r#ref,
            app: app.cloned(),
            deployment: None,
            reason: Some(reason),
        }
    }
}

fn apps_of(api: &Api, repository: &Path) -> Vec<Arc<App>> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let wanted = real(repository);
    let in_force = api.agent.in_force();
    let config = &in_force.config;
    let apps = config.apps.values();
    apps.filter(|app| matches!(&app.repo, Repo::Local(path) if real(path) == wanted))
        .cloned()
        .collect()
}
