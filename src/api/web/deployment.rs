//! A deployment: its steps as they go, why it failed, its watch, what the switch cost, and its log.

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use maud::{Markup, html};
use rusqlite::Connection;

use super::fold::folded;
use super::forge_link;
use super::layout::{Page, csrf};
use super::log_tail::LogTail;
use super::parts::{asked, between, commit, duration, message, prose, state, when};
use super::refusal::{For, Result};
use super::timeline;
use super::viewer::Viewer;
use crate::api::path::{DeploymentPath, find};
use crate::api::view::{self, DeploymentView, StepState, StepView};
use crate::api::{Api, Shared, apps};
use crate::deploy::words::counted;
use crate::principal::Role;
use crate::proxy::control::Tally;
use crate::state::State as Reached;
use crate::store::apps::serving;
use crate::store::deployments::{Deployment, Failure};
use crate::store::releases::{self, Release};

pub async fn show(State(api): Shared, viewer: Viewer, Path(path): Path<DeploymentPath>) -> Result {
    let found = find(&api, &viewer.principal, Role::Read, &path.id).await;
    let found = found.told(&viewer)?;
    let (app, is_rest) = (found.app.clone(), found.state.is_rest());
    let log = LogTail::read(&api.agent.store.log_path(&found.id)).await;
    let read = api.agent.store.read(move |db| {
        let from = before(db, &found)?.map(|release| release.commit.to_string());
        Ok((view::deployment(db, found)?, from))
    });
    let (shown, from) = read.await.told(&viewer)?;
    let shown = match apps::images(&api).await {
        Some(images) => shown.among(&images),
        None => shown,
    };
    let watch = match shown.state {
        Reached::Baking => tallies(&api, &shown).await,
        _ => Vec::new(),
    };
    let live = match is_rest {
        true => "/live".to_owned(),
        false => format!("/live?deployment={}&from={}", shown.id, log.end),
    };
    let of_app = api.agent.app(&app);
    let may = viewer.principal.may(Role::Deploy) && of_app.is_some();
    let changes = forge_link::changes(of_app.as_deref(), from.as_deref(), shown.commit.as_deref());
    let what = shown.message.as_deref().unwrap_or(&shown.id);
    let page = Page {
        title: &format!(
            "{}: {}, {what}",
            shown.app,
            super::parts::state_words(shown.state).0
        ),
        viewer: Some(&viewer),
        live: Some(live),
        body: html! {
            (head(&shown, &viewer, may, changes))
            div #steps data-fresh {
                @if let Some(error) = &shown.error { (failure(error, shown.state)) }
                (steps(&shown))
                (tests(&shown))
                (baking(&watch, &shown))
                (receipt(&shown))
            }
            (log_section(&shown, &log))
        },
    };
    Ok(page.whole().into_response())
}

/// The release that was live before this deployment's; what is live, if it has none.
fn before(db: &Connection, of: &Deployment) -> crate::store::Result<Option<Release>> {
    let own = match &of.release {
        Some(id) => releases::get(db, id)?,
        None => None,
    };
    match own {
        Some(own) => releases::before(db, &own),
        None => match serving(db, &of.app)?.live {
            Some(live) => releases::get(db, &live),
            None => Ok(None),
        },
    }
}

/// What the watch has counted so far. Without the proxy's answer, nothing is shown.
async fn tallies(api: &Api, shown: &DeploymentView) -> Vec<Tally> {
    api.agent
        .proxy
        .tallies(&shown.app)
        .await
        .unwrap_or_default()
}

fn head(shown: &DeploymentView, viewer: &Viewer, may: bool, changes: Markup) -> Markup {
    let path = format!("/deployments/{}", shown.id);
    let (is_open, switched) = (!shown.state.is_rest(), shown.state.is_switched());
    html! {
        div #head data-fresh {
            p.crumbs { a href={ "/apps/" (shown.app) } { (shown.app) } " / " code { (shown.id) } }
            div.title {
                h1 { (message(shown.message.as_deref())) }
                (state(shown.state))
                @if shown.current { span.state.good { (super::parts::mark("good")) "serves now" } }
            }
            p.quiet {
                @if let Some(id) = &shown.commit { (commit(id)) " " }
                @if let Some(author) = shown.author.as_ref().filter(|it| !it.is_empty()) { "by " (author) ", " }
                (asked(shown)) " " (when(&shown.created_at))
                @if let Some(time) = timeline::whole(shown) { ", took " (duration(time)) }
                @if let Some(who) = &shown.cancelled_by { ", cancelled by " (super::parts::requester(who)) }
                " " (changes)
            }
            @if may {
                div.actions {
                    @if is_open && !switched { (button(viewer, &format!("{path}/cancel"), "Cancel")) }
                    @if !is_open && !shown.current && shown.state != Reached::Live {
                        (button(viewer, &format!("{path}/retry"), "Try again"))
                    }
                    @if let Some(release) = can_go_back(shown) {
                        a.button href={ "/apps/" (shown.app) "/rollback?to=" (release) } { "Roll back to this" }
                    }
                }
            }
        }
    }
}

fn can_go_back(shown: &DeploymentView) -> Option<&str> {
    let good = shown.state == Reached::Live && !shown.current && shown.kept && !shown.image_gone;
    shown.release.as_deref().filter(|_| good)
}

fn button(viewer: &Viewer, path: &str, text: &str) -> Markup {
    html! { form method="post" action=(path) { (csrf(viewer)) button { (text) } } }
}

fn failure(error: &Failure, state: Reached) -> Markup {
    let class = match state {
        Reached::Failed | Reached::Stuck | Reached::RolledBack => "notice bad",
        _ => "notice",
    };
    html! {
        div class=(class) #error {
            p {
                @if let Some(step) = &error.step { strong { (step) ": " } }
                (prose(&error.message))
            }
            @if !error.log_tail.is_empty() {
                pre tabindex="0" { @for line in &error.log_tail { (line) "\n" } }
            }
        }
    }
}

fn steps(shown: &DeploymentView) -> Markup {
    html! {
        @if shown.steps.is_empty() && !shown.state.is_rest() {
            p.quiet { "It waits for its turn." }
        }
        ol.steps {
            @for step in &shown.steps {
                li {
                    (step_state(step))
                    span.name { (step.name) }
                    span.took {
                        @if let Some(time) = between(&step.started_at, step.ended_at.as_deref()) { (duration(time)) }
                    }
                    span.detail { @if let Some(detail) = &step.detail { (prose(detail)) } }
                }
            }
        }
    }
}

fn step_state(step: &StepView) -> Markup {
    let (word, class) = match step.state {
        StepState::Done => ("done", "good"),
        StepState::Failed => ("failed", "bad"),
        StepState::Stopped => ("stopped", "off"),
        StepState::Started => ("under way", "busy"),
    };
    html! { span class={ "state " (class) } { (super::parts::mark(class)) span.unseen { (word) } } }
}

/// The numbers of the watch as they grow.
fn baking(all: &[Tally], shown: &DeploymentView) -> Markup {
    html! {
        @if !all.is_empty() {
            h2 { "The watch so far" }
            table tabindex="0" {
                thead { tr { th { "Release" } th.number { "Requests" } th.number { "Failed" } th.number { "Share" } } }
                tbody {
                    @for one in all {
                        tr {
                            td {
                                @if Some(&one.release) == shown.release.as_ref() { "this one" } @else { "the one before" }
                                " " code { (one.release) }
                            }
                            td.number { (one.requests) }
                            td.number { (one.failed) }
                            td.number { (share(one.failed, one.requests)) }
                        }
                    }
                }
            }
        }
    }
}

fn share(part: u64, of: u64) -> String {
    match of {
        0 => "-".to_owned(),
        of => format!("{:.1} %", 100.0 * part as f64 / of as f64),
    }
}

/// What the image's test said of its single tests.
fn tests(shown: &DeploymentView) -> Markup {
    html! {
        @if let Some(tests) = &shown.tests {
            h2 { "Tests" }
            p {
                (counted(tests.tests, "test")) ", "
                @if tests.failed == 0 { "none failed" }
                @else { span.state.bad { (tests.failed) " failed" } }
                @if tests.skipped > 0 { ", " (tests.skipped) " skipped" }
                @if tests.failures.is_empty() { "." } @else { ":" }
            }
            @if !tests.failures.is_empty() {
                ul {
                    @for name in &tests.failures { li { code { (name) } } }
                    @let more = tests.failed.saturating_sub(tests.failures.len() as u64);
                    @if more > 0 { li { "and " (more) " more" } }
                }
            }
        }
    }
}

/// What the switch cost.
fn receipt(shown: &DeploymentView) -> Markup {
    html! {
        @if let Some(receipt) = &shown.receipt {
            h2 { "What the switch cost" }
            p {
                (counted(receipt.requests, "request")) " during it, "
                @if receipt.failed == 0 { "none failed" }
                @else { span.state.bad { (receipt.failed) " failed" } }
                "; " (receipt.retried) " sent again, " (receipt.drained) " finished by the old release in "
                (duration(std::time::Duration::from_millis(receipt.drain_ms)))
                @if receipt.websockets_closed > 0 {
                    ", " (counted(receipt.websockets_closed, "WebSocket")) " told to come back"
                }
                "."
            }
        }
    }
}

fn log_section(shown: &DeploymentView, log: &LogTail) -> Markup {
    html! {
        section aria-labelledby="log-head" {
            h2 #log-head { "Log" }
            @if log.begin > 0 {
                p.quiet { "The beginning is left out here. " a href={ "/deployments/" (shown.id) "/log" } { "The whole log" } }
            }
            pre.log #log tabindex="0" aria-labelledby="log-head" {
                (folded(&log.text))
            }
            @if log.begin == 0 {
                p.quiet { a href={ "/deployments/" (shown.id) "/log" } { "As text" } }
            }
        }
    }
}
