//! Apps, their deployments and their releases.

use std::collections::HashSet;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};

use super::page::{DeploymentsQuery, NamesQuery, Page, PageQuery};
use super::path::{AppPath, known};
use super::responses::{Malformed, UnknownApp};
use super::view::{self, AppView, DeploymentView, ReleaseView};
use super::{ApiError, Shared};
use crate::ids::AppName;
use crate::principal::{Principal, Role};
use crate::store::{app_names, apps, deployments, releases};

/// How long an answer waits for Docker to list its images.
const IMAGES: Duration = Duration::from_secs(2);

/// List the apps
///
/// The apps of deploy.toml that the token may see, by name, followed by those that still serve although they
/// are no longer in it; in one page unless there is a `limit`.
#[utoipa::path(
    get,
    path = "/api/v1/apps",
    operation_id = "listApps",
    tag = "apps",
    params(NamesQuery),
    responses(
        (status = 200, description = "A page of apps", body = Page<AppView>),
        (status = 400, response = Malformed),
    ),
)]
pub async fn list(
    State(api): Shared,
    caller: Principal,
    Query(query): Query<NamesQuery>,
) -> Result<Json<Page<AppView>>, ApiError> {
    let (limit, cursor) = query.page()?;
    let in_force = api.agent.in_force();
    let (store, tend) = (&api.agent.store, api.agent.tend.clone());
    let items = store
        .read(move |db| {
            let apps = &in_force.config.apps;
            let is_lost = |name: &str| !apps.keys().any(|it| it.as_str() == name);
            let mut lost = app_names::in_use(db)?;
            lost.retain(|name| !apps.contains_key(name));
            lost.sort();
            let after = cursor.map(|name| (is_lost(&name), name));
            let is_wanted = |name: &AppName| {
                let place = (!apps.contains_key(name), name.to_string());
                caller.sees(name) && after.as_ref().is_none_or(|after| place > *after)
            };
            let names = apps.keys().chain(&lost).filter(|name| is_wanted(name));
            let shown = names.take(limit + 1).map(|name| match apps.get(name) {
                Some(app) => view::app(db, app),
                None => view::lost_app(db, name),
            });
            let tended = shown.map(|app| app.map(|app| app.tended(&tend)));
            tended.collect::<Result<Vec<_>, _>>()
        })
        .await?;
    Ok(Json(Page::new(items, limit, |app| app.name.clone())))
}

/// Show an app
#[utoipa::path(
    get,
    path = "/api/v1/apps/{app}",
    operation_id = "getApp",
    tag = "apps",
    params(AppPath),
    responses(
        (status = 200, description = "The app", body = AppView),
        (status = 400, response = Malformed),
        (status = 404, response = UnknownApp),
    ),
)]
pub async fn show(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
) -> Result<Json<AppView>, ApiError> {
    let name = known(&api, &caller, Role::Read, &path.app).await?;
    let app = api.agent.app(&name);
    let shown = api.agent.store.read(move |db| match app {
        Some(app) => view::app(db, &app),
        None => view::lost_app(db, &name),
    });
    Ok(Json(shown.await?.tended(&api.agent.tend)))
}

/// List the deployments of an app
///
/// Newest first.
#[utoipa::path(
    get,
    path = "/api/v1/apps/{app}/deployments",
    operation_id = "listDeployments",
    tag = "deployments",
    params(AppPath, DeploymentsQuery),
    responses(
        (status = 200, description = "A page of deployments", body = Page<DeploymentView>),
        (status = 400, response = Malformed),
        (status = 404, response = UnknownApp),
    ),
)]
pub async fn deployments(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    Query(query): Query<DeploymentsQuery>,
) -> Result<Json<Page<DeploymentView>>, ApiError> {
    let app = known(&api, &caller, Role::Read, &path.app).await?;
    let (page, filter) = (query.page(), query.filter()?);
    let (limit, cursor) = (page.limit()?, page.cursor());
    let items = api.agent.store.read(move |db| {
        let rows = deployments::filtered(db, &app, &filter, cursor.as_deref(), limit + 1)?;
        rows.into_iter()
            .map(|row| view::deployment(db, row))
            .collect::<Result<Vec<_>, _>>()
    });
    Ok(Json(Page::new(items.await?, limit, |item| item.id.clone())))
}

/// List the releases of an app
///
/// Newest first.
#[utoipa::path(
    get,
    path = "/api/v1/apps/{app}/releases",
    operation_id = "listReleases",
    tag = "apps",
    params(AppPath, PageQuery),
    responses(
        (status = 200, description = "A page of releases", body = Page<ReleaseView>),
        (status = 400, response = Malformed),
        (status = 404, response = UnknownApp),
    ),
)]
pub async fn releases(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ReleaseView>>, ApiError> {
    let app = known(&api, &caller, Role::Read, &path.app).await?;
    let (limit, cursor, least) = (query.limit()?, query.cursor(), query.least('r')?);
    let images = images(&api).await;
    let items = api.agent.store.read(move |db| {
        let serving = apps::serving(db, &app)?;
        let rows = releases::list(db, &app, cursor.as_deref(), limit + 1)?;
        rows.into_iter()
            .take_while(|row| *row.id.as_str() >= *least)
            .map(|row| {
                let release = view::release(db, row, &serving)?;
                Ok(match &images {
                    Some(images) => release.among(images),
                    None => release,
                })
            })
            .collect::<Result<Vec<_>, _>>()
    });
    Ok(Json(Page::new(items.await?, limit, |item| item.id.clone())))
}

/// The ids of the images in Docker; `None` if it does not answer soon.
pub async fn images(api: &super::Api) -> Option<HashSet<String>> {
    let ids = tokio::time::timeout(IMAGES, api.agent.engine.image_ids());
    ids.await.ok()?.ok()
}
