//! The server: the engine, the proxy, the disk, what is odd, and who may come in.

use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use maud::{Markup, html};
use serde_json::Value;

use super::layout::{Page, csrf};
use super::machine;
use super::parts::{mark, problems, prose, requester, when};
use super::refusal::{For, Result};
use super::session;
use super::viewer::Viewer;
use crate::api::view::{RequesterView, rfc3339};
use crate::api::{Api, Shared, auth, certificates, configuration};
use crate::config;
use crate::deploy::words::{counted, unreached};
use crate::deploy::{detail, difference, orphans};
use crate::principal::{Role, Scope};
use crate::store::actions::{self, Action, Filter};
use crate::store::now;
use crate::store::sessions::{self, Session};
use crate::store::tokens::{self, Token};

pub async fn show(State(api): Shared, viewer: Viewer) -> Result {
    let is_admin = auth::check_server(&viewer.principal, Role::Admin).is_ok();
    let checks = machine::checks(&api).await;
    let mut odd = api.agent.tend.differences(None);
    if is_admin {
        odd.extend(oddities(&api).await);
    } else {
        let caller = &viewer.principal;
        odd.retain(|_| caller.apps == Scope::All);
    }
    let sessions = sessions_of(&api, &viewer, is_admin).await.told(&viewer)?;
    let tokens = match is_admin {
        true => api.agent.store.read(tokens::all).await.told(&viewer)?,
        false => Vec::new(),
    };
    let actions = match is_admin {
        true => {
            let read = |db: &_| actions::list(db, None, ACTIONS, &Filter::default(), |_| true);
            api.agent.store.read(read).await.told(&viewer)?
        }
        false => Vec::new(),
    };
    let mut names = match is_admin {
        true => {
            let (names, broken) = certificates::all(&api).await.told(&viewer)?;
            odd.extend(broken.iter().map(|(path, why)| {
                format!("the certificate `{}` cannot be used: {why}", path.display())
            }));
            names
        }
        false => Vec::new(),
    };
    names.sort_by_key(|it| it.problem.is_none());
    let page = Page {
        title: "Server",
        viewer: Some(&viewer),
        live: Some("/live".into()),
        body: html! {
            h1 { "Server" }
            div #server data-fresh {
                (problems(&odd))
                dl.checks {
                    @for check in &checks {
                        dt { span class={ "state " (check.class) } { (mark(check.class)) (check.name) } }
                        dd { (prose(&check.text)) }
                    }
                }
                p.hint { code { "cutover doctor" } " on the server looks at more." }
            }
            @if !names.is_empty() {
                section aria-labelledby="certificates-head" {
                    h2 #certificates-head { "Certificates" }
                    div #certificates data-fresh { (super::certificates::table(&names)) }
                }
            }
            @if is_admin { (token_table(&tokens)) (action_table(&actions)) }
            (session_table(&sessions, &viewer))
        },
    };
    Ok(page.whole().into_response())
}

/// How long the engine may take to list what it has.
const PATIENCE: Duration = Duration::from_secs(2);

/// What works and is likely to surprise.
async fn oddities(api: &Api) -> Vec<String> {
    let difference = difference::difference(&api.agent).await;
    let mut odd: Vec<_> = difference.notice.into_iter().collect();
    odd.extend(difference.mistakes);
    let unrecorded = api.agent.unrecorded.apps().into_iter();
    odd.extend(unrecorded.map(|app| {
        format!(
            "`{app}` serves, but the database does not know it: `cutover adopt` records it again"
        )
    }));
    let in_force = api.agent.in_force();
    // Secrets are read from files, which may be slow.
    let warnings = tokio::task::spawn_blocking(move || config::warnings(&in_force.config));
    odd.extend(warnings.await.unwrap_or_default());
    odd.extend(api.agent.tend.volumes(None));
    for it in configuration::unreached(api).await.unwrap_or_default() {
        let since = Duration::from_millis((now() - it.since).try_into().unwrap_or(0));
        odd.push(unreached(&it.receiver, since, &it.error, it.waiting));
    }
    let orphans = orphans::list(&api.agent);
    if let Ok(Ok(orphans)) = tokio::time::timeout(PATIENCE, orphans).await
        && !orphans.is_empty()
    {
        let found = counted(orphans.len() as u64, "thing");
        odd.push(format!(
            "{found} with this agent's labels are in no record: `cutover gc` shows and removes them"
        ));
    }
    odd
}

/// A session, and whose it is.
type Held = (Session, String);

async fn sessions_of(api: &Api, viewer: &Viewer, all: bool) -> crate::store::Result<Vec<Held>> {
    let mut held = Vec::new();
    for session in api.agent.store.read(sessions::all).await? {
        let Some(principal) = session::principal(api, &session.holder).await else {
            continue;
        };
        if all || principal.who.is_same(&viewer.principal.who) {
            held.push((session, principal.who.to_string()));
        }
    }
    Ok(held)
}

fn token_table(all: &[Token]) -> Markup {
    html! {
        section #tokens aria-labelledby="tokens-head" {
            h2 #tokens-head { "Tokens" }
            @if all.is_empty() {
                p.quiet { "Only the one of the server itself. " code { "cutover token create NAME" } " makes others, "
                          "with fewer rights." }
            } @else {
                table tabindex="0" {
                    thead { tr { th { "Name" } th { "Role" } th { "Apps" } th { "Used" } th { "Expires" } } }
                    tbody {
                        @for token in all {
                            tr {
                                td { (token.name) " " code { (token.prefix) "…" } }
                                td data-label="Role" { (token.role.as_str()) }
                                td data-label="Apps" { (apps(&token.apps)) }
                                td data-label="Used" { @match token.used_at { Some(at) => (when(&rfc3339(at))), None => "never" } }
                                td data-label="Expires" {
                                    @match token.expires_at {
                                        Some(_) if token.is_expired() => span.state.bad { (mark("bad")) "expired" },
                                        Some(at) => { (rfc3339(at).get(..10).unwrap_or_default()) },
                                        None => "never",
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn apps(scope: &Scope) -> String {
    match scope {
        Scope::All => "all".to_owned(),
        Scope::Apps(apps) => {
            let names: Vec<_> = apps.iter().map(|app| app.as_str()).collect();
            names.join(", ")
        }
    }
}

/// How many of the last actions are shown.
const ACTIONS: usize = 20;

fn action_table(all: &[Action]) -> Markup {
    html! {
        section aria-labelledby="actions-head" {
            h2 #actions-head { "Audit log" }
            @if all.is_empty() { p.quiet { "Nothing yet." } }
            @else {
                table tabindex="0" {
                    thead { tr { th { "When" } th { "Who" } th { "From" } th { "What" } th { "App" } th { "" } } }
                    tbody {
                        @for one in all {
                            tr {
                                td { (when(&rfc3339(one.id.made_at()))) }
                                td { (requester(&RequesterView::from(one.by.clone()))) }
                                td { @if let Some(from) = one.by.address() { (from) } }
                                td { (one.kind) }
                                td { @if let Some(app) = &one.app { (app) } }
                                td.detail { (target(&one.detail)) }
                            }
                        }
                    }
                }
                p.hint { code { "cutover audit" } " on the server shows and exports all of it." }
            }
        }
    }
}

/// What an action concerned: `name: ci, role: read`, with a link to its deployment.
fn target(detail: &Value) -> Markup {
    html! {
        @for (n, (name, value)) in detail::pairs(detail).into_iter().enumerate() {
            @if n > 0 { ", " }
            (name) ": "
            @match name.as_str() {
                "deployment" => a href={ "/deployments/" (value) } { (value) },
                _ => (value),
            }
        }
    }
}

fn session_table(all: &[Held], viewer: &Viewer) -> Markup {
    html! {
        section #sessions aria-labelledby="sessions-head" {
            h2 #sessions-head { "Signed in" }
            @if all.is_empty() { p.quiet { "Nobody." } }
            @else {
                table tabindex="0" {
                    thead { tr { th { "Who" } th { "Browser" } th { "From" } th { "Seen" } th { "" } } }
                    tbody {
                        @for (session, who) in all {
                            tr {
                                td { (prose(who)) }
                                td.browser { (session.browser) }
                                td { (session.address) }
                                td data-label="Seen" { (when(&rfc3339(session.seen_at))) }
                                td.act {
                                    @if viewer.session.as_ref() == Some(&session.hash) { span.quiet { "this one" } }
                                    @else {
                                        form method="post" action="/sessions/end" {
                                            (csrf(viewer))
                                            input type="hidden" name="session" value=(session.hash);
                                            button { "End" }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
