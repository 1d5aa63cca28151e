//! Pin an app, and put it under maintenance: two forms that say what they do.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect};
use maud::{Markup, html};

use super::confirm::{back_link, page};
use super::fields::Fields;
use super::layout::csrf;
use super::parts::{prose, when};
use super::refusal::{For, Result};
use super::viewer::Viewer;
use crate::api::path::{AppPath, acting};
use crate::api::view::{AppView, HeldView};
use crate::api::{Shared, hold as asked};
use crate::config::App;
use crate::deploy::hold;
use crate::principal::Role;
use crate::store::holds::{self, Hold};

/// What the app's page says of what is put on it.
pub fn notice(app: &AppView) -> Markup {
    let said = |held: &HeldView| {
        html! {
            (when(&held.at)) " by " (prose(&held.by))
            @if let Some(text) = &held.text { " (“" (text) "”)" }
        }
    };
    html! {
        @if app.removing {
            p.notice { "This app is being removed. Deployments that are queued now wait until it is gone." }
        }
        @if let Some(held) = &app.pinned {
            p.notice { "Pinned " (said(held)) ": what is pushed is recorded and not deployed." }
        }
        @if let Some(held) = &app.maintenance {
            p.notice { "Under maintenance since " (said(held)) ": its visitors get 503." }
        }
    }
}

pub fn buttons(app: &AppView, path: &str) -> Markup {
    let pin = if app.pinned.is_some() { "Unpin" } else { "Pin" };
    let maintenance = match app.maintenance {
        Some(_) => "End maintenance",
        None => "Maintenance",
    };
    html! {
        a.button href={ (path) "/pin" } { (pin) }
        a.button href={ (path) "/maintenance" } { (maintenance) }
    }
}

/// What a form asks.
struct Words {
    title: &'static str,
    path: &'static str,
    what: &'static str,
    label: &'static str,
}

impl Words {
    fn of(hold: Hold, is_on: bool) -> Self {
        let (title, path, what, label) = match (hold, is_on) {
            (Hold::Pin, false) => (
                "Pin",
                "pin",
                "What is pushed from now on is recorded with the reason and not deployed. What somebody asks for here, \
                 on the command line or over the API is.",
                "Why",
            ),
            (Hold::Pin, true) => (
                "Unpin",
                "pin",
                "The next push goes live again. What was pushed meanwhile is not deployed by itself.",
                "",
            ),
            (Hold::Maintenance, false) => (
                "Maintenance",
                "maintenance",
                "Visitors get 503 at once. The instances go on, and what is pushed is deployed.",
                "What visitors read",
            ),
            (Hold::Maintenance, true) => (
                "End maintenance",
                "maintenance",
                "Visitors reach the app again at once.",
                "",
            ),
        };
        Self {
            title,
            path,
            what,
            label,
        }
    }
}

pub async fn ask_pin(api: Shared, viewer: Viewer, path: Path<AppPath>) -> Result {
    ask(api, viewer, path, Hold::Pin).await
}

pub async fn ask_maintenance(api: Shared, viewer: Viewer, path: Path<AppPath>) -> Result {
    ask(api, viewer, path, Hold::Maintenance).await
}

async fn ask(State(api): Shared, viewer: Viewer, Path(path): Path<AppPath>, of: Hold) -> Result {
    let app = acting(&api, &viewer.principal, Role::Deploy, &path.app).await;
    let app = app.told(&viewer)?;
    let name = app.name.clone();
    let held = api.agent.store.read(move |db| holds::of(db, &name, of));
    let is_on = held.await.told(&viewer)?.is_some();
    let words = Words::of(of, is_on);
    let body = html! {
        p { (words.what) }
        form.fields method="post" action={ "/apps/" (app.name) "/" (words.path) } {
            (csrf(&viewer))
            @if is_on { input type="hidden" name="off" value="yes"; }
            @else {
                label for="text" { (words.label) }
                input #text name="text" maxlength="500";
            }
            div.actions {
                button.main { (words.title) }
                (back_link(&app.name))
            }
        }
    };
    page(&title(&words, &app), &viewer, &app.name, body)
}

fn title(words: &Words, app: &App) -> String {
    format!("{}: {}", words.title, app.name)
}

pub async fn pin(api: Shared, viewer: Viewer, path: Path<AppPath>, fields: Fields) -> Result {
    change(api, viewer, path, fields, Hold::Pin).await
}

pub async fn maintenance(
    api: Shared,
    viewer: Viewer,
    path: Path<AppPath>,
    fields: Fields,
) -> Result {
    change(api, viewer, path, fields, Hold::Maintenance).await
}

async fn change(
    State(api): Shared,
    viewer: Viewer,
    Path(path): Path<AppPath>,
    fields: Fields,
    of: Hold,
) -> Result {
    let app = acting(&api, &viewer.principal, Role::Deploy, &path.app).await;
    let app = app.told(&viewer)?;
    let text = asked::checked(fields.get("text").map(str::to_owned), "text").told(&viewer)?;
    let off = fields.get("off").is_some();
    let by = viewer.principal.who.clone();
    let set = hold::set(&api.agent, &app.name, of, text, off, by).await;
    set.told(&viewer)?;
    Ok(Redirect::to(&format!("/apps/{}", app.name)).into_response())
}
