//! What arrived for an app: pushes and webhook deliveries, what became of each, and the same again.

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use maud::{Markup, html};

use super::fields::Fields;
use super::layout::{Page, csrf};
use super::parts::{commit, prose, requester, state, when};
use super::refusal::{For, Result};
use super::viewer::Viewer;
use crate::api::Shared;
use crate::api::path::{AppPath, known};
use crate::api::view::{RequesterView, rfc3339};
use crate::deploy::words::short_ref;
use crate::ids::DeploymentId;
use crate::principal::Role;
use crate::state;
use crate::store::arrivals::{self, Arrival};
use crate::store::deployments;

/// How many one page shows.
const SHOWN: usize = 50;

type Row = (Arrival, Option<state::State>);

pub async fn show(
    State(api): Shared,
    viewer: Viewer,
    Path(path): Path<AppPath>,
    fields: Fields,
) -> Result {
    let app = known(&api, &viewer.principal, Role::Read, &path.app).await;
    let app = app.told(&viewer)?;
    let may = viewer.principal.may(Role::Deploy) && api.agent.app(&app).is_some();
    let (name, before) = (app.clone(), fields.get("before").map(str::to_owned));
    let read = api.agent.store.read(move |db| {
        let all = arrivals::list(db, &name, before.as_deref(), SHOWN + 1)?;
        let row = |it: Arrival| {
            let id = it.deployment.as_deref();
            let id: Option<DeploymentId> = id.and_then(|id| id.parse().ok());
            let found = id.map(|id| deployments::get(db, &id)).transpose()?;
            let state = found.flatten().map(|found| found.state);
            Ok::<_, crate::store::StoreError>((it, state))
        };
        all.into_iter()
            .map(row)
            .collect::<std::result::Result<Vec<Row>, _>>()
    });
    let mut rows = read.await.told(&viewer)?;
    let more = rows.len() > SHOWN;
    rows.truncate(SHOWN);
    let older = rows.last().filter(|_| more).map(|(it, _)| it.id.clone());
    let body = html! {
        p.crumbs { a href={ "/apps/" (app) } { (app) } }
        h1 { "Deliveries" }
        div #deliveries data-fresh {
            @if rows.is_empty() {
                p.quiet { "None yet: the forge sends them to " code { "/hooks/" (app) } "." }
            } @else { (table(&rows, may.then_some(&viewer), app.as_str())) }
            @if let Some(older) = &older {
                p { a href={ "/apps/" (app) "/deliveries?before=" (older) } { "Older deliveries" } }
            }
        }
    };
    let page = Page {
        title: &format!("Deliveries of {app}"),
        viewer: Some(&viewer),
        live: Some("/live".into()),
        body,
    };
    Ok(page.whole().into_response())
}

fn table(rows: &[Row], may: Option<&Viewer>, app: &str) -> Markup {
    html! {
        table tabindex="0" {
            thead { tr { th { "Received" } th { "Source" } th { "Event" } th { "Outcome" } th { "" } } }
            tbody {
                @for (it, reached) in rows {
                    tr {
                        td { (when(&rfc3339(it.at))) }
                        td { (from(it)) }
                        td {
                            @match &it.git_ref {
                                Some(name) => {
                                    (short_ref(name)) " "
                                    @match &it.new { Some(id) => (commit(id)), None => span.quiet { "deleted" } }
                                },
                                None => (it.event.as_deref().unwrap_or_default()),
                            }
                        }
                        td { (became(it, *reached)) }
                        td.act { @if let (Some(viewer), Some(new)) = (may, &it.new) { (again(viewer, app, new)) } }
                    }
                }
            }
        }
    }
}

fn from(it: &Arrival) -> Markup {
    html! {
        @match &it.by {
            Some(by) => (requester(&RequesterView::from(by.clone()))),
            None => (it.forge.as_deref().unwrap_or_default()),
        }
        @if let Some(id) = &it.delivery { " " code.quiet title={ "Delivery " (id) } { (id) } }
    }
}

fn became(it: &Arrival, reached: Option<state::State>) -> Markup {
    html! {
        @if let (Some(id), Some(reached)) = (&it.deployment, reached) {
            a.state-link href={ "/deployments/" (id) } { (state(reached)) }
            " "
        } @else if it.new.is_some() {
            span.state.off { (super::parts::mark("off")) "not deployed" } " "
        }
        @if let Some(reason) = &it.reason { span.quiet { (prose(reason)) } }
    }
}

/// Deploys the commit that it named, whatever became of it.
fn again(viewer: &Viewer, app: &str, new: &str) -> Markup {
    html! {
        form method="post" action={ "/apps/" (app) "/deploy" } {
            (csrf(viewer))
            input type="hidden" name="ref" value=(new);
            button title={ "Deploy " (new) } { "Deploy" }
        }
    }
}
