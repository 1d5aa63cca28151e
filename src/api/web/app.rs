//! An app: what is live, how its deployments went, and what it can go back to.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use maud::{Markup, html};

use super::chart::{self, Mark};
use super::fields::Fields;
use super::hold;
use super::home::health;
use super::instances::Instances;
use super::layout::Page;
use super::parts::{asked, brief, by, commit, message, moment, problems, state, when};
use super::refusal::{For, Result};
use super::stop;
use super::timeline;
use super::viewer::Viewer;
use crate::api::cron::{self, CronView};
use crate::api::path::{AppPath, known};
use crate::api::view::{self, AppView, DeploymentView, ReleaseView};
use crate::api::{Api, Shared, apps, certificates};
use crate::certificates::names::Name;
use crate::deploy::traffic::{DAY, HOUR};
use crate::deploy::words::changed;
use crate::principal::Role;
use crate::state::{State as Reached, Step};
use crate::store::now;
use crate::store::secrets::Secret;
use crate::store::{apps as table, deployments, releases, secrets, variables};

/// How many deployments one page shows.
const DEPLOYMENTS: usize = 20;
/// How many releases.
const RELEASES: usize = 20;
/// How many characters of an error are shown in a list.
const WHY: usize = 200;

struct Shown {
    app: AppView,
    deployments: Vec<DeploymentView>,
    older: Option<String>,
    releases: Vec<ReleaseView>,
    instances: Instances,
    cron: Vec<CronView>,
    domains: Vec<Name>,
    secrets: Vec<Secret>,
    /// The names of the environment.
    variables: BTreeSet<String>,
}

pub async fn show(
    State(api): Shared,
    viewer: Viewer,
    Path(path): Path<AppPath>,
    fields: Fields,
) -> Result {
    let shown = read(&api, &viewer, &path.app, fields.get("before")).await?;
    let app = shown
        .app
        .name
        .parse()
        .ok()
        .and_then(|name| api.agent.app(&name));
    let address = app.map(|app| api.agent.in_force().config.app_url(&app));
    let name = &shown.app.name;
    let day = fields.get("traffic") == Some("day");
    let page = Page {
        title: name,
        viewer: Some(&viewer),
        live: Some("/live".into()),
        body: body(
            &shown,
            &viewer,
            address.as_deref(),
            traffic(&api, &shown, day),
        ),
    };
    Ok(page.whole().into_response())
}

async fn read(api: &Api, viewer: &Viewer, name: &str, before: Option<&str>) -> Result<Shown> {
    let name = known(api, &viewer.principal, Role::Read, name).await;
    let name = name.told(viewer)?;
    let (app, before) = (api.agent.app(&name), before.map(str::to_owned));
    let instances = Instances::read(api, name.clone()).await.told(viewer)?;
    let domains = match &app {
        Some(app) => certificates::all(api)
            .await
            .told(viewer)?
            .0
            .into_iter()
            .filter(|it| app.domains.contains(&it.name))
            .collect(),
        None => Vec::new(),
    };
    let is_admin = viewer.principal.may(Role::Admin);
    let images = apps::images(api).await;
    let read = api.agent.store.read(move |db| {
        let cron = match &app {
            Some(app) => cron::of_app(db, app)?,
            None => Vec::new(),
        };
        let kept = variables::values(db, &name)?.into_keys();
        let file = app.iter().flat_map(|app| app.run.env.keys().cloned());
        let variables = kept.chain(file).collect();
        let app = match app {
            Some(app) => view::app(db, &app)?,
            None => view::lost_app(db, &name)?,
        };
        let rows = deployments::list(db, &name, before.as_deref(), DEPLOYMENTS + 1)?;
        let more = rows.len() > DEPLOYMENTS;
        let rows = rows.into_iter().take(DEPLOYMENTS);
        let deployments = rows.map(|row| view::deployment(db, row));
        let deployments = deployments.collect::<crate::store::Result<Vec<_>>>()?;
        let serving = table::serving(db, &name)?;
        let mut shown = Vec::new();
        for row in releases::list(db, &name, None, RELEASES)? {
            let release = view::release(db, row, &serving)?;
            shown.push(match &images {
                Some(images) => release.among(images),
                None => release,
            });
        }
        Ok(Shown {
            app,
            older: deployments.last().filter(|_| more).map(|it| it.id.clone()),
            deployments,
            releases: shown,
            instances,
            cron,
            domains,
            variables,
            secrets: if is_admin {
                secrets::of_app(db, &name)?
            } else {
                Vec::new()
            },
        })
    });
    let shown = read.await.told(viewer)?;
    let app = shown.app.tended(&api.agent.tend);
    Ok(Shown { app, ..shown })
}

/// The last hour or day, with the switches in it.
fn traffic(api: &Api, shown: &Shown, day: bool) -> Markup {
    let switch = |it: &DeploymentView| {
        let step = it
            .steps
            .iter()
            .find(|step| step.name == Step::Switch.as_str())?;
        let at = moment(step.ended_at.as_deref()?)?;
        Some(Mark {
            at: (at.unix_timestamp_nanos() / 1_000_000) as i64,
            what: it.message.clone().unwrap_or_default(),
        })
    };
    let marks: Vec<_> = shown.deployments.iter().filter_map(switch).collect();
    let (traffic, name, path) = (
        &api.agent.traffic,
        &shown.app.name,
        format!("/apps/{}", shown.app.name),
    );
    let (points, span) = match day {
        true => (traffic.day(name, now()), DAY),
        false => (traffic.hour(name), HOUR),
    };
    html! {
        (chart::whole(&points, &marks, span, traffic.began(), now()))
        p.quiet {
            @if day { a href={ (path) "#traffic-head" } { "The last hour" } }
            @else { a href={ (path) "?traffic=day#traffic-head" } { "The last day" } }
        }
    }
}

fn body(shown: &Shown, viewer: &Viewer, address: Option<&str>, traffic: Markup) -> Markup {
    let app = &shown.app;
    let path = format!("/apps/{}", app.name);
    let may = viewer.principal.may(Role::Deploy) && app.configured;
    html! {
        div #head data-fresh {
            div.title {
                h1 { (app.name) }
                (health(app))
                @if let Some(address) = address { a href=(address) rel="noreferrer" { (address) } }
            }
            @if may {
                p.actions {
                    a.button href={ (path) "/deploy" } { "Deploy" }
                    (stop::button(app, &path))
                    @if app.release.is_some() && app.stopped.is_none() {
                        a.button href={ (path) "/rollback" } { "Roll back" }
                        a.button href={ (path) "/restart" } { "Restart" }
                        a.button href={ (path) "/scale" } { "Scale" }
                    }
                    (hold::buttons(app, &path))
                    (elsewhere(&path))
                }
            } @else {
                p.actions { (elsewhere(&path)) }
            }
            (stop::notice(app))
            (hold::notice(app))
            (problems(&app.problems))
            @if let Some(release) = &app.release { (live(release)) }
        }
        section aria-labelledby="traffic-head" {
            h2 #traffic-head { "Traffic" }
            div #traffic data-fresh { (traffic) }
        }
        section aria-labelledby="deployments-head" {
            h2 #deployments-head { "Deployments" }
            div #deployments data-fresh { (deployments_list(shown, &path)) }
        }
        section aria-labelledby="releases-head" {
            h2 #releases-head { "Releases" }
            div #releases data-fresh { (releases_table(shown, &path, may)) }
        }
        section aria-labelledby="instances-head" {
            h2 #instances-head { "Instances" }
            div #instances data-fresh { (shown.instances.table()) }
        }
        @if !shown.cron.is_empty() {
            section aria-labelledby="cron-head" {
                h2 #cron-head { "Scheduled commands" }
                div #cron data-fresh { (super::cron::table(&shown.cron)) }
            }
        }
        @if !shown.domains.is_empty() {
            section aria-labelledby="domains-head" {
                h2 #domains-head { "Domains" }
                div #domains data-fresh { (super::certificates::table(&shown.domains)) }
            }
        }
        section aria-labelledby="runs-head" {
            h2 #runs-head { "Runs as" }
            div #runs data-fresh { (runs(shown)) }
        }
    }
}

/// The other pages about the app.
fn elsewhere(path: &str) -> Markup {
    html! {
        a.button href={ (path) "/log" } { "Log" }
        a.button href={ (path) "/deliveries" } { "Deliveries" }
    }
}

fn live(release: &ReleaseView) -> Markup {
    html! {
        p {
            "Live: " (message(Some(&release.message))) " "
            span.quiet {
                (commit(&release.commit)) (by(&release.author))
                @if let Some(at) = &release.live_at { ", " (when(at)) }
            }
        }
    }
}

fn deployments_list(shown: &Shown, path: &str) -> Markup {
    let times = shown.deployments.iter().filter_map(work);
    let longest = times.max().unwrap_or(Duration::from_secs(1));
    html! {
        @if shown.deployments.is_empty() {
            p.quiet { "None yet: push to the branch " code { (shown.app.branch) } "." }
        }
        ol.timeline {
            @for it in &shown.deployments {
                li {
                    a.state-link href={ "/deployments/" (it.id) } {
                        @if it.state == Reached::Live && !it.current {
                            span.state.off { (super::parts::mark("off")) "was live" }
                        }
                        @else { (state(it.state)) }
                    }
                    div.what {
                        (message(it.message.as_deref()))
                        @if let Some(why) = it.error.as_ref().and_then(|it| it.message.lines().next()) {
                            p.quiet { (why.chars().take(WHY).collect::<String>()) }
                        }
                        p.quiet {
                            @if let Some(id) = &it.commit { (commit(id)) " " }
                            (asked(it)) ", " (when(&it.created_at))
                        }
                    }
                    div.took {
                        (timeline::bar(it, longest))
                        @if let Some(time) = work(it) { (super::parts::duration(time)) }
                    }
                }
            }
        }
        @if let Some(older) = &shown.older {
            p { a href={ (path) "?before=" (older) } { "Older deployments" } }
        }
    }
}

/// The time that a deployment's steps took together.
fn work(deployment: &DeploymentView) -> Option<Duration> {
    let steps = deployment.steps.iter().filter_map(timeline::of);
    Some(steps.sum()).filter(|sum: &Duration| !sum.is_zero())
}

fn releases_table(shown: &Shown, path: &str, may: bool) -> Markup {
    let kept = shown.releases.iter().filter(|it| it.live_at.is_some());
    html! {
        table tabindex="0" {
            thead { tr { th { "Release" } th { "Commit" } th { "Live" } th { "" } } }
            tbody {
                @for it in kept {
                    tr {
                        td {
                            a href={ "/deployments/" (it.deployment) } { (message(Some(&it.message))) }
                            @if let Some(all) = &it.changed { " " span.quiet { (changed(all)) } }
                        }
                        td { (commit(&it.commit)) }
                        td data-label="Live" {
                            @if let Some(at) = &it.live_at { (when(at)) }
                            @if it.failed_bake { " " span.state.warn { "failed its watch" } }
                        }
                        td.act {
                            @if it.current { span.state.good { (super::parts::mark("good")) "current" } }
                            @else if it.gone { span.quiet { "image removed" } }
                            @else if !it.kept { span.quiet { "no longer kept" } }
                            @else if may { a.button href={ (path) "/rollback?to=" (it.id) } { "Roll back to this" } }
                        }
                    }
                }
            }
        }
    }
}

fn runs(shown: &Shown) -> Markup {
    html! {
        dl {
            @if shown.app.branch.is_empty() {
                dt { "Image" }
                dd { code title=(shown.app.repo) { (brief(&shown.app.repo)) } }
            } @else {
                dt { "Repository" }
                dd { (crate::source::without_password(&shown.app.repo)) ", branch " code { (shown.app.branch) } }
            }
            @if !shown.variables.is_empty() {
                dt { "Environment" }
                dd { @for name in &shown.variables { code { (name) } " " } }
            }
            @if !shown.secrets.is_empty() {
                dt { "Secrets" }
                dd {
                    @for secret in &shown.secrets {
                        code { (secret.name) } " "
                        span.quiet { "version " (secret.version) ", " (when(&view::rfc3339(secret.set_at))) }
                        br;
                    }
                }
            }
        }
    }
}
