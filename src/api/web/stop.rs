//! Stop an app, and start it again.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect};
use maud::{Markup, html};

use super::confirm::{back_link, page};
use super::layout::csrf;
use super::parts::{prose, when};
use super::refusal::{For, Result};
use super::viewer::Viewer;
use crate::api::Shared;
use crate::api::path::{AppPath, acting};
use crate::api::view::AppView;
use crate::deploy::stop;
use crate::principal::Role;
use crate::store::deployments::Trigger;

/// What the app's page says of one that is stopped.
pub fn notice(app: &AppView) -> Markup {
    html! {
        @if let Some(stopped) = &app.stopped {
            p.notice { "Stopped " (when(&stopped.at)) " by " (prose(&stopped.by)) ": its visitors get 503, and what is pushed \
                        waits." }
        }
    }
}

pub fn button(app: &AppView, path: &str) -> Markup {
    html! {
        @if app.stopped.is_some() { a.button href={ (path) "/start" } { "Start" } }
        @else if app.release.is_some() { a.button href={ (path) "/stop" } { "Stop" } }
    }
}

pub async fn ask_stop(State(api): Shared, viewer: Viewer, Path(path): Path<AppPath>) -> Result {
    let app = acting(&api, &viewer.principal, Role::Deploy, &path.app).await;
    let app = app.told(&viewer)?;
    let body = html! {
        p { "Visitors get 503 at once. Its instances finish their requests and are stopped; nothing is scheduled, and \
             what is pushed waits, until it is started again. Its data stays." }
        form.actions method="post" action={ "/apps/" (app.name) "/stop" } {
            (csrf(&viewer))
            button.main { "Stop" }
            (back_link(&app.name))
        }
    };
    page(&format!("Stop {}", app.name), &viewer, &app.name, body)
}

pub async fn stop(State(api): Shared, viewer: Viewer, Path(path): Path<AppPath>) -> Result {
    let app = acting(&api, &viewer.principal, Role::Deploy, &path.app).await;
    let app = app.told(&viewer)?;
    let by = viewer.principal.who.clone();
    let stopped = stop::stop(&api.agent, &app.name, by).await;
    stopped.told(&viewer)?;
    Ok(Redirect::to(&format!("/apps/{}", app.name)).into_response())
}

pub async fn ask_start(State(api): Shared, viewer: Viewer, Path(path): Path<AppPath>) -> Result {
    let app = acting(&api, &viewer.principal, Role::Deploy, &path.app).await;
    let app = app.told(&viewer)?;
    let body = html! {
        p { "What was live is started and takes requests once it is healthy; what waited is deployed after it." }
        form.actions method="post" action={ "/apps/" (app.name) "/start" } {
            (csrf(&viewer))
            button.main { "Start" }
            (back_link(&app.name))
        }
    };
    page(&format!("Start {}", app.name), &viewer, &app.name, body)
}

pub async fn start(State(api): Shared, viewer: Viewer, Path(path): Path<AppPath>) -> Result {
    let app = acting(&api, &viewer.principal, Role::Deploy, &path.app).await;
    let app = app.told(&viewer)?;
    let by = viewer.principal.who.clone();
    let queued = stop::start(&api.agent, &app.name, Trigger::Api, by).await;
    let to = match queued.told(&viewer)? {
        Some(queued) => format!("/deployments/{}", queued.id),
        None => format!("/apps/{}", app.name),
    };
    Ok(Redirect::to(&to).into_response())
}
