//! All apps: one look that says whether all is well.

use axum::extract::State;
use axum::response::IntoResponse;
use maud::{Markup, html};

use super::chart;
use super::layout::Page;
use super::parts::{by, command, mark, message, prose, short, state, strip, when};
use super::refusal::{For, Result};
use super::viewer::Viewer;
use crate::api::Shared;
use crate::api::view::{self, AppView, rfc3339};
use crate::deploy::traffic::{Minute, Point};
use crate::ids::AppName;
use crate::store::overview::{self, Overview};
use crate::store::{app_names, certificates, now};

/// How many deployments the strip shows.
const STRIP: usize = 10;

struct Row {
    /// Only how it serves.
    app: AppView,
    of: Overview,
    waits_for_engine: bool,
    points: Vec<Point>,
    minute: Option<Minute>,
}

impl Row {
    /// What needs a person comes first, then what is on its way. What all apps suffer from puts none of
    /// them before the others.
    fn rank(&self, everywhere: &[String]) -> u8 {
        let failed = self.of.last.first().is_some_and(|it| {
            use crate::state::State::{Failed, RolledBack, Stuck};
            matches!(it.state, Failed | RolledBack | Stuck)
        });
        let own = |problem: &String| !everywhere.contains(problem);
        match &self.of.running {
            _ if self.app.problems.iter().any(own) => 0,
            _ if !self.app.configured => 1,
            _ if failed => 1,
            Some(_) => 2,
            None => 3,
        }
    }
}

pub async fn show(State(api): Shared, viewer: Viewer) -> Result {
    let in_force = api.agent.in_force();
    let (tend, caller) = (api.agent.tend.clone(), viewer.principal.clone());
    let agent = api.agent.clone();
    let read = api.agent.store.read(move |db| {
        let apps = &in_force.config.apps;
        let others = app_names::in_use(db)?;
        let others = others.into_iter().filter(|name| !apps.contains_key(name));
        let names = apps.keys().cloned().chain(others);
        let names: Vec<_> = names.filter(|name| caller.sees(name)).collect();
        let certificates = certificates::all(db)?;
        let refused = |domain: &String| {
            let error = certificates.get(domain)?.error.as_ref()?;
            Some(format!("`{domain}` gets no certificate: {error}"))
        };
        let row = |(name, of): (&AppName, Overview)| {
            let configured = apps.get(name);
            let mut app = view::as_it_serves(name, configured.is_some(), &of).tended(&tend);
            let domains = configured.into_iter().flat_map(|app| &app.domains);
            app.problems.extend(domains.filter_map(refused));
            let running = of.running.as_ref();
            Row {
                app,
                waits_for_engine: running.is_some_and(|it| view::waits_for_engine(&tend, it.state)),
                of,
                points: agent.traffic.hour(name.as_str()),
                minute: agent.traffic.minute(name.as_str(), now()),
            }
        };
        let all = overview::all(db, &names, STRIP)?;
        Ok(names.iter().zip(all).map(row).collect::<Vec<_>>())
    });
    let mut rows = read.await.told(&viewer)?;
    let mut problems: Vec<String> = Vec::new();
    for problem in rows.iter().flat_map(|row| &row.app.problems) {
        if !problems.contains(problem) {
            problems.push(problem.clone());
        }
    }
    let is_everywhere =
        |problem: &&String| rows.iter().all(|row| row.app.problems.contains(problem));
    let everywhere: Vec<_> = problems.iter().filter(is_everywhere).cloned().collect();
    let everywhere = if rows.len() > 1 {
        everywhere
    } else {
        Vec::new()
    };
    rows.sort_by_key(|row| row.rank(&everywhere));
    let title = match problems.len() {
        0 => "Apps".to_owned(),
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    };
    let body = html! {
        div #apps data-fresh {
            h1 { "Apps" }
            (super::parts::problems(&problems))
            @if rows.is_empty() { (empty()) }
            @else { ul.apps { @for row in &rows { (card(row, row.rank(&everywhere))) } } }
        }
    };
    let page = Page {
        title: &title,
        viewer: Some(&viewer),
        live: Some("/live".into()),
        body,
    };
    Ok(page.whole().into_response())
}

fn empty() -> Markup {
    html! {
        p { "There are no apps yet. On the server, add a section to deploy.toml and reload it:" }
        (command("[apps.hello]\nrepo = \"https://github.com/acme/hello.git\"\nport = 8080"))
        (command("cutover check && cutover reload"))
    }
}

fn card(row: &Row, rank: u8) -> Markup {
    let app = &row.app;
    let path = format!("/apps/{}", app.name);
    let newest = row.of.last.first().filter(|_| rank < 3);
    html! {
        li.card {
            div.name {
                h2 { a href=(path) { (app.name) } }
                (health(app))
                @if row.of.is_pinned { span.state.off { (mark("off")) "pinned" } }
                @if app.removing { span.state.warn { (mark("warn")) "being removed" } }
                @if row.of.in_maintenance { span.state.warn { (mark("warn")) "maintenance" } }
            }
            div.release {
                @match &row.of.live {
                    Some(live) => {
                        (message(Some(&live.message)))
                        p.quiet {
                            code { (short(&live.commit)) } (by(&live.author)) ", live "
                            @if let Some(at) = live.since { (when(&rfc3339(at))) }
                        }
                    },
                    None => p.quiet { "Nothing is live yet" },
                }
                @if !app.configured {
                    p.hint { "no longer in deploy.toml; it serves until " (prose(&format!("`cutover remove {}`", app.name))) }
                }
            }
            div.traffic {
                (chart::spark(&row.points, now()))
                p { (chart::minute(row.minute)) }
            }
            div.now {
                @if let Some(running) = &row.of.running {
                    p { a href={ "/deployments/" (running.id) } { (state(running.state)) } " "
                        @if row.waits_for_engine { span.state.warn { "waiting for Docker" } " " }
                        span.quiet { (message(running.message.as_deref())) } }
                }
                @if let Some(newest) = newest.filter(|it| row.of.running.as_ref().is_none_or(|run| run.id != it.id)) {
                    p { a href={ "/deployments/" (newest.id) } { (state(newest.state)) } " "
                        (when(&rfc3339(newest.ended_at.unwrap_or(newest.created_at)))) }
                }
                (strip(&row.of.last))
            }
        }
    }
}

/// Whether an app serves as it should.
pub fn health(app: &AppView) -> Markup {
    html! {
        @match &app.instances {
            _ if app.stopped.is_some() => span.state.off { (mark("off")) "stopped" },
            None => span.state.off { (mark("off")) "nothing live" },
            Some(of) if of.serving == of.wanted => {
                span.state.good { (mark("good")) "serving" }
                @if of.wanted > 1 { span.quiet { (of.wanted) " instances" } }
            },
            Some(of) => span.state.bad { (mark("bad")) (of.serving) " of " (of.wanted) " instances serve" },
        }
    }
}
