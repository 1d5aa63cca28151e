//! Deployments, releases and apps as the API shows them. The shapes are fixed: other programs read
//! them.

use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::ids::ReleaseId;
use crate::proxy::control::Receipt;
use crate::state::State;
use crate::store::apps::Serving;
use crate::store::deployments::{self, Deployment, Failure, Trigger};
use crate::store::releases::Release;
use crate::store::statuses::{self, ForgeStatus, StatusKind, StatusPhase};
use crate::store::{Result, steps};

#[derive(Debug, Serialize)]
pub struct DeploymentView {
    pub id: String,
    app: String,
    trigger: Trigger,
    r#ref: Option<String>,
    commit: Option<String>,
    message: Option<String>,
    author: Option<String>,
    state: State,
    /// Whether its release is what serves now.
    current: bool,
    release: Option<String>,
    image: Option<String>,
    image_id: Option<String>,
    created_at: String,
    ended_at: Option<String>,
    steps: Vec<StepView>,
    timings_ms: BTreeMap<String, i64>,
    receipt: Option<Receipt>,
    error: Option<Failure>,
    reports: Vec<ReportView>,
}

/// What a forge is told of a deployment.
#[derive(Debug, Serialize)]
struct ReportView {
    kind: StatusKind,
    phase: StatusPhase,
    /// `waiting`, `told` or `refused`.
    state: &'static str,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct StepView {
    name: String,
    state: String,
    started_at: String,
    ended_at: Option<String>,
    detail: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct ReleaseView {
    pub id: String,
    app: String,
    deployment: String,
    commit: String,
    message: String,
    author: String,
    image: String,
    image_id: String,
    current: bool,
    created_at: String,
    /// When it went live last.
    live_at: Option<String>,
    /// Whether its image is still there to go back to.
    kept: bool,
}

#[derive(Debug, Serialize)]
pub struct AppView {
    name: String,
    repo: String,
    branch: String,
    domains: Vec<String>,
    release: Option<ReleaseView>,
    deployment: Option<DeploymentView>,
}

/// Looks up what belongs to a deployment and puts it together.
pub fn deployment(db: &rusqlite::Connection, row: Deployment) -> Result<DeploymentView> {
    let serving = crate::store::apps::serving(db, &row.app)?;
    let release = match &row.release {
        Some(id) => crate::store::releases::get(db, id)?,
        None => None,
    };
    let steps = steps::of(db, &row.id)?;
    let reports = statuses::of(db, &row.id)?;
    let timings = steps.iter().filter_map(|step| {
        step.ended_at
            .map(|ended| (step.name.clone(), ended - step.started_at))
    });
    // Of several deployments that made one release live, the last is the one that counts.
    let current = match (&row.release, &serving.live) {
        (Some(own), Some(live)) if own == live => is_last_with(db, &row, live)?,
        _ => false,
    };
    Ok(DeploymentView {
        id: row.id.to_string(),
        app: row.app.to_string(),
        trigger: row.trigger,
        r#ref: row.git_ref,
        commit: row.commit.map(String::from),
        message: row.message,
        author: row.author,
        state: row.state,
        current,
        release: row.release.map(String::from),
        image: release.as_ref().map(|release| release.image.clone()),
        image_id: release.map(|release| release.image_id),
        created_at: rfc3339(row.created_at),
        ended_at: row.ended_at.map(rfc3339),
        timings_ms: timings.collect(),
        steps: steps.into_iter().map(step).collect(),
        receipt: row.receipt,
        error: row.error,
        reports: reports.into_iter().filter_map(report).collect(),
    })
}

fn report(report: ForgeStatus) -> Option<ReportView> {
    let state = match &report.error {
        _ if report.is_waiting() => "waiting",
        Some(_) => "refused",
        // There was nothing to say that is worth a deployment of the forge's own.
        None if report.kind == StatusKind::Deployment && report.forge_id.is_none() => return None,
        None => "told",
    };
    Some(ReportView {
        kind: report.kind,
        phase: report.phase,
        state,
        error: report.error,
    })
}

fn is_last_with(db: &rusqlite::Connection, row: &Deployment, live: &ReleaseId) -> Result<bool> {
    let switched = row.state.is_switched() || row.state == State::Live;
    Ok(switched && deployments::last_of_release(db, live)?.as_ref() == Some(&row.id))
}

fn step(record: steps::Record) -> StepView {
    StepView {
        name: record.name,
        state: record.state,
        started_at: rfc3339(record.started_at),
        ended_at: record.ended_at.map(rfc3339),
        detail: record.detail,
    }
}

pub fn release(row: Release, serving: &Serving) -> ReleaseView {
    ReleaseView {
        current: serving.live.as_ref() == Some(&row.id),
        id: row.id.to_string(),
        app: row.app.to_string(),
        deployment: row.deployment.to_string(),
        commit: row.commit.to_string(),
        message: row.message,
        author: row.author,
        image: row.image,
        image_id: row.image_id,
        created_at: rfc3339(row.created_at),
        live_at: row.went_live.map(rfc3339),
        kept: row.went_live.is_some() && row.removed_at.is_none(),
    }
}

pub fn app(db: &rusqlite::Connection, app: &crate::config::App) -> Result<AppView> {
    let serving = crate::store::apps::serving(db, &app.name)?;
    let live = match &serving.live {
        Some(id) => crate::store::releases::get(db, id)?,
        None => None,
    };
    let last = deployments::list(db, &app.name, None, 1)?
        .into_iter()
        .next();
    Ok(AppView {
        name: app.name.to_string(),
        repo: repo(&app.repo),
        branch: app.branch.clone(),
        domains: app.domains.clone(),
        release: live.map(|row| release(row, &serving)),
        deployment: last.map(|row| deployment(db, row)).transpose()?,
    })
}

fn repo(repo: &crate::config::Repo) -> String {
    match repo {
        crate::config::Repo::Http(url) | crate::config::Repo::Ssh(url) => url.clone(),
        crate::config::Repo::Local(path) => path.display().to_string(),
    }
}

/// RFC 3339 in UTC, with milliseconds.
pub fn rfc3339(millis: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}
