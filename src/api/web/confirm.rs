//! Pages that ask before something is done: from what to what, and what it does not undo.

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use maud::{Markup, html};

use super::fields::Fields;
use super::layout::{Page, csrf};
use super::parts::{by, commit, message, prose, when};
use super::refusal::{For, Result};
use super::viewer::Viewer;
use crate::api::path::{AppPath, acting};
use crate::api::view::{self, ReleaseView};
use crate::api::{Api, ApiError, Shared};
use crate::deploy::rollback as back;
use crate::ids::AppName;
use crate::principal::Role;
use crate::store::{apps, releases, secrets};

/// What is live, and what a rollback makes live.
struct Way {
    from: ReleaseView,
    to: ReleaseView,
    /// The secrets that have changed since then.
    secrets: Vec<String>,
}

pub fn page(title: &str, viewer: &Viewer, app: &AppName, body: Markup) -> Result {
    let page = Page {
        title,
        viewer: Some(viewer),
        live: None,
        body: html! {
            p.crumbs { a href={ "/apps/" (app) } { (app) } }
            h1 { (title) }
            (body)
        },
    };
    Ok(page.whole().into_response())
}

pub fn back_link(app: &AppName) -> Markup {
    html! { a.button.plain href={ "/apps/" (app) } { "Cancel" } }
}

fn described(release: &ReleaseView) -> Markup {
    html! {
        (message(Some(&release.message)))
        p.quiet {
            (commit(&release.commit)) (by(&release.author))
            @if let Some(at) = &release.live_at { ", live " (when(at)) }
            ", release " code { (release.id) }
        }
    }
}

pub async fn rollback(
    State(api): Shared,
    viewer: Viewer,
    Path(path): Path<AppPath>,
    fields: Fields,
) -> Result {
    let app = acting(&api, &viewer.principal, Role::Deploy, &path.app).await;
    let app = app.told(&viewer)?;
    let way = way(&api, &app.name, fields.get("to")).await;
    let Way { from, to, secrets } = way.told(&viewer)?;
    let may_set = !secrets.is_empty() && viewer.principal.may(Role::Admin);
    let body = html! {
        dl.way {
            dt { "From" } dd { (described(&from)) }
            dt { "To" } dd { (described(&to)) }
        }
        @if to.failed_bake {
            p.notice.bad { "This release failed its watch when it was live before." }
        }
        p { "New instances of that release's image are started and take over once they are healthy, without a \
             build and without a lost request." }
        p { "It does not undo:" }
        ul {
            li { "what the newer releases wrote: databases, volumes, files" }
            li { "changes of secrets, of scale and of deploy.toml outside of what a release runs with" }
            li { "the branch " code { (app.branch) } ": the next push to it is deployed as usual" }
        }
        form.actions method="post" action={ "/apps/" (app.name) "/rollback" } {
            (csrf(&viewer))
            input type="hidden" name="from" value=(from.id);
            input type="hidden" name="to" value=(to.id);
            @if may_set {
                label.check {
                    input type="checkbox" name="secrets" value="yes";
                    " Bring back the values that the secrets had then: "
                    @for (number, name) in secrets.iter().enumerate() {
                        @if number > 0 { ", " } code { (name) }
                    }
                }
            }
            button.main { "Roll back" }
            (back_link(&app.name))
        }
    };
    page(&format!("Roll back {}", app.name), &viewer, &app.name, body)
}

async fn way(api: &Api, app: &AppName, to: Option<&str>) -> std::result::Result<Way, ApiError> {
    let (name, to) = (app.clone(), to.map(str::to_owned));
    let wish = back::Wish {
        to,
        ..Default::default()
    };
    let read = api.agent.store.read(move |db| {
        let target = back::target(db, &name, &wish)?;
        let serving = apps::serving(db, &name)?;
        let live = match &serving.live {
            Some(id) => releases::get(db, id)?,
            None => None,
        };
        Ok((live, target, serving))
    });
    let (live, target, serving) = read.await?;
    let name = app.clone();
    let Some(live) = live else {
        let message = format!("nothing of `{app}` is live");
        let status = axum::http::StatusCode::CONFLICT;
        return Err(ApiError::new(status, "refused", message, ""));
    };
    let read = api.agent.store.read(move |db| {
        Ok(Way {
            secrets: secrets::changed_since(db, &name, &target.id)?,
            from: view::release(db, live, &serving)?,
            to: view::release(db, target, &serving)?,
        })
    });
    Ok(read.await?)
}

pub async fn restart(State(api): Shared, viewer: Viewer, Path(path): Path<AppPath>) -> Result {
    let app = acting(&api, &viewer.principal, Role::Deploy, &path.app).await;
    let app = app.told(&viewer)?;
    let body = html! {
        p { "New instances of the live release are started with the values of now, and take over once they are \
             healthy; no request is lost." }
        form.actions method="post" action={ "/apps/" (app.name) "/restart" } {
            (csrf(&viewer))
            button.main { "Restart" }
            (back_link(&app.name))
        }
    };
    page(&format!("Restart {}", app.name), &viewer, &app.name, body)
}

pub async fn deploy(State(api): Shared, viewer: Viewer, Path(path): Path<AppPath>) -> Result {
    let app = acting(&api, &viewer.principal, Role::Deploy, &path.app).await;
    let app = app.told(&viewer)?;
    let repo = match &app.repo {
        crate::config::Repo::Local(path) => path.display().to_string(),
        crate::config::Repo::Image(image) => image.to_string(),
        crate::config::Repo::Http(url) | crate::config::Repo::Ssh(url) => {
            crate::source::without_password(url)
        }
    };
    let (what, usual) = match app.image() {
        Some(image) => ("Tag or digest", &image.tag),
        None => ("Branch, tag or commit", &app.branch),
    };
    let body = html! {
        p { "Fetches " code { (repo) } ", builds an image and lets it take over once it is healthy. "
            (prose("If it fails, what is live stays.")) }
        form.fields method="post" action={ "/apps/" (app.name) "/deploy" } {
            (csrf(&viewer))
            label for="ref" { (what) }
            input #ref name="ref" maxlength="255" placeholder=(usual) spellcheck="false" autocapitalize="off";
            label.check { input type="checkbox" name="no_cache" value="yes"; " Build without the cache" }
            label.check { input type="checkbox" name="pull" value="yes"; " Look for newer base images" }
            div.actions {
                button.main { "Deploy" }
                (back_link(&app.name))
            }
        }
    };
    page(&format!("Deploy {}", app.name), &viewer, &app.name, body)
}
