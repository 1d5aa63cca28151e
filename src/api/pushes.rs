//! Pushes to a bare repository on this machine, handed over by its post-receive hook.

use std::path::{Path, PathBuf};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::page::Page;
use super::{Api, ApiError, Shared, json};
use crate::config::{App, Repo};
use crate::deploy::{filter, intake};
use crate::ids::{AppName, CommitId, DeploymentId};
use crate::source;
use crate::store::deployments::NewDeployment;
use crate::webhook::Ref;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pushes {
    /// The bare repository's path.
    repository: PathBuf,
    updates: Vec<Update>,
    /// `-o cutover.no-cache`: build every step anew.
    #[serde(default)]
    no_cache: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    r#ref: String,
    #[serde(rename = "old")]
    _old: String,
    new: String,
}

/// What a pushed ref led to.
#[derive(Debug, Serialize)]
pub struct Taken {
    r#ref: String,
    app: Option<AppName>,
    deployment: Option<DeploymentId>,
    reason: Option<String>,
}

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
            let reason = format!("no app of deploy.toml has `repo = \"{path}\"`");
            items.push(Taken::nothing(update, None, reason));
        }
        for app in apps {
            items.push(take(&api, app, &pushes, update).await?);
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
        return nothing(format!("the {git_ref} was deleted; what is live stays"));
    }
    let commit: CommitId = update
        .new
        .parse()
        .map_err(|e| ApiError::bad_request(format!("{e}")))?;
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

fn apps_of<'a>(api: &'a Api, repository: &Path) -> Vec<&'a App> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let wanted = real(repository);
    let apps = api.agent.config.apps.values();
    apps.filter(|app| matches!(&app.repo, Repo::Local(path) if real(path) == wanted))
        .collect()
}
