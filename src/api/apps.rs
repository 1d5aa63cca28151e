//! What there is: apps, their deployments and releases.

use axum::Json;
use axum::extract::{Path, Query, State};

use super::page::{Page, PageQuery};
use super::view::{self, AppView, DeploymentView, ReleaseView};
use super::{Api, ApiError, Shared};
use crate::config::App;
use crate::store::{apps, deployments, releases};

/// The app that a path names.
pub fn named<'a>(api: &'a Api, name: &str) -> Result<&'a App, ApiError> {
    let app = name
        .parse()
        .ok()
        .and_then(|name| api.agent.config.apps.get(&name));
    app.ok_or_else(|| ApiError::no_such_app(name))
}

pub async fn list(State(api): Shared) -> Result<Json<Page<AppView>>, ApiError> {
    let all: Vec<App> = api.agent.config.apps.values().cloned().collect();
    let store = &api.agent.store;
    let items = store
        .read(move |db| all.iter().map(|app| view::app(db, app)).collect())
        .await?;
    Ok(Json(Page::whole(items)))
}

pub async fn show(State(api): Shared, Path(name): Path<String>) -> Result<Json<AppView>, ApiError> {
    let app = named(&api, &name)?.clone();
    Ok(Json(
        api.agent.store.read(move |db| view::app(db, &app)).await?,
    ))
}

pub async fn deployments(
    State(api): Shared,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<DeploymentView>>, ApiError> {
    let app = named(&api, &name)?.name.clone();
    let (limit, cursor) = (query.limit()?, query.cursor());
    let items = api.agent.store.read(move |db| {
        let rows = deployments::list(db, &app, cursor.as_deref(), limit + 1)?;
        rows.into_iter()
            .map(|row| view::deployment(db, row))
            .collect::<Result<Vec<_>, _>>()
    });
    Ok(Json(Page::new(items.await?, limit, |item| item.id.clone())))
}

pub async fn releases(
    State(api): Shared,
    Path(name): Path<String>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ReleaseView>>, ApiError> {
    let app = named(&api, &name)?.name.clone();
    let (limit, cursor) = (query.limit()?, query.cursor());
    let items = api.agent.store.read(move |db| {
        let serving = apps::serving(db, &app)?;
        let rows = releases::list(db, &app, cursor.as_deref(), limit + 1)?;
        Ok(rows
            .into_iter()
            .map(|row| view::release(row, &serving))
            .collect::<Vec<_>>())
    });
    Ok(Json(Page::new(items.await?, limit, |item| item.id.clone())))
}
