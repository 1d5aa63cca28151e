//! What the buttons do. Each leads to the page of the deployment that it has queued.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};

use super::fields::Fields;
use super::refusal::{For, Result};
use super::viewer::Viewer;
use crate::api::deployments as asked;
use crate::api::path::{AppPath, DeploymentPath, acting, find};
use crate::api::{Api, ApiError, Shared, auth};
use crate::deploy::intake;
use crate::deploy::rollback::Wish;
use crate::ids::AppName;
use crate::principal::{Requester, Role};
use crate::store::apps;
use crate::store::deployments::{Deployment, Goal, NewDeployment, Trigger};

pub(super) fn to(deployment: &Deployment) -> Response {
    Redirect::to(&format!("/deployments/{}", deployment.id)).into_response()
}

pub async fn deploy(
    State(api): Shared,
    viewer: Viewer,
    Path(path): Path<AppPath>,
    fields: Fields,
) -> Result {
    let app = acting(&api, &viewer.principal, Role::Deploy, &path.app).await;
    let app = app.told(&viewer)?;
    let named = fields.get("ref").map(str::to_owned);
    let (git_ref, image) = match app.image() {
        Some(_) => (None, named),
        None => (named, None),
    };
    let wanted = asked::wanted(&app, git_ref, image).told(&viewer)?;
    let by = viewer.principal.who.clone();
    let new = NewDeployment {
        no_cache: fields.get("no_cache").is_some(),
        pull: fields.get("pull").is_some(),
        ..intake::wished(&app.name, wanted, Trigger::Api, by)
    };
    let queued = intake::deployment(&api.agent, new).await;
    Ok(to(&queued.told(&viewer)?))
}

/// Only if what the page said was live still is: somebody else may have pressed a button too.
pub async fn rollback(
    State(api): Shared,
    viewer: Viewer,
    Path(path): Path<AppPath>,
    fields: Fields,
) -> Result {
    let app = acting(&api, &viewer.principal, Role::Deploy, &path.app).await;
    let name = app.told(&viewer)?.name.clone();
    let of = name.clone();
    let live = api.agent.store.read(move |db| apps::serving(db, &of));
    let live = live.await.told(&viewer)?.live;
    let seen = fields.get("from");
    if live.as_ref().map(|live| live.as_str()) != seen {
        let message =
            format!("another release of `{name}` has gone live meanwhile; nothing was done");
        let hint = "look at what is live now, and decide again";
        let error = ApiError::new(StatusCode::CONFLICT, "changed", message, hint);
        return Err(error).told(&viewer);
    }
    let by = viewer.principal.who.clone();
    let secrets = fields.get("secrets").is_some();
    if secrets {
        // As whoever sets them.
        auth::check(&viewer.principal, Role::Admin, &name).told(&viewer)?;
    }
    let wish = Wish {
        to: fields.get("to").map(str::to_owned),
        secrets,
        ..Default::default()
    };
    let queued = asked::roll_back(&api, &name, wish, by, None).await;
    let queued = queued.and_then(asked::deployment);
    Ok(to(&queued.told(&viewer)?))
}

pub async fn restart(State(api): Shared, viewer: Viewer, Path(path): Path<AppPath>) -> Result {
    let app = acting(&api, &viewer.principal, Role::Deploy, &path.app).await;
    let app = app.told(&viewer)?;
    let by = viewer.principal.who.clone();
    let queued = restarted(&api, &app.name, by).await;
    Ok(to(&queued.told(&viewer)?))
}

async fn restarted(
    api: &Api,
    app: &AppName,
    by: Requester,
) -> std::result::Result<Deployment, ApiError> {
    let queued = intake::restart(&api.agent, app, Trigger::Api, by, None).await?;
    asked::deployment(queued)
}

pub async fn cancel(
    State(api): Shared,
    viewer: Viewer,
    Path(path): Path<DeploymentPath>,
) -> Result {
    let found = find(&api, &viewer.principal, Role::Deploy, &path.id).await;
    let found = found.told(&viewer)?;
    let now = asked::cancelled(&api, &found, &viewer.principal.who).await;
    Ok(to(&now.told(&viewer)?))
}

/// The same once more: the same commit, or the same release.
pub async fn retry(State(api): Shared, viewer: Viewer, Path(path): Path<DeploymentPath>) -> Result {
    let found = find(&api, &viewer.principal, Role::Deploy, &path.id).await;
    let found = found.told(&viewer)?;
    let app = acting(&api, &viewer.principal, Role::Deploy, found.app.as_str()).await;
    let app = app.told(&viewer)?;
    let by = viewer.principal.who.clone();
    let queued = match found.goal {
        Goal::Release(release) => {
            let wish = Wish {
                to: Some(release.to_string()),
                ..Default::default()
            };
            let queued = asked::roll_back(&api, &app.name, wish, by, None).await;
            queued.and_then(asked::deployment)
        }
        Goal::Again => restarted(&api, &app.name, by).await,
        _ => {
            // Of an image, the message is its whole name.
            let exactly = match app.image() {
                Some(_) => found.message,
                None => found.commit.map(String::from),
            };
            let wanted = exactly.or(found.git_ref);
            let new = intake::wished(&app.name, wanted, Trigger::Api, by);
            intake::deployment(&api.agent, new)
                .await
                .map_err(ApiError::from)
        }
    };
    Ok(to(&queued.told(&viewer)?))
}
