//! The scheduled commands of an app, and their runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::json::NoBody;
use super::page::{Page, PageQuery};
use super::path::{AppPath, acting};
use super::responses::{Forbidden, Malformed, NotConfigured, UnknownApp};
use super::view::rfc3339;
use super::{ApiError, Shared};
use crate::config::App;
use crate::deploy::cron;
use crate::ids::ServiceName;
use crate::principal::{Principal, Role};
use crate::store::jobs::{self, Job, Part};
use crate::store::{StoreError, apps, now};

/// A scheduled command.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cron)]
pub struct CronView {
    #[schema(example = "cleanup")]
    pub(super) name: String,
    #[schema(example = "0 3 * * *")]
    pub(super) schedule: String,
    #[schema(example = "Europe/Berlin")]
    pub(super) timezone: String,
    #[schema(example = "bin/cleanup --old")]
    pub(super) command: String,
    /// Null while the app is stopped or nothing of it is live.
    #[schema(required, format = DateTime, example = "2026-05-05T01:00:00Z")]
    pub(super) next_at: Option<String>,
    /// The newest run; null before the first.
    #[schema(required)]
    pub(super) last: Option<CronRunView>,
}

/// One run of a scheduled command.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CronRun)]
pub struct CronRunView {
    /// The container's name.
    #[schema(example = "cutover-hello-cron-cleanup-19df0a41b2c-5be01c2e")]
    pub(super) id: String,
    /// `running`, `succeeded`, `failed`, `skipped`, `stopped` or `lost`.
    #[schema(example = "succeeded")]
    pub(super) state: &'static str,
    /// When it should have begun; null if a person asked for it.
    #[schema(required, format = DateTime, example = "2026-05-04T01:00:00Z")]
    pub(super) due_at: Option<String>,
    #[schema(format = DateTime, example = "2026-05-04T01:00:00.020Z")]
    pub(super) started_at: String,
    /// Null while it runs.
    #[schema(required, format = DateTime, example = "2026-05-04T01:00:09.481Z")]
    pub(super) ended_at: Option<String>,
    #[schema(required, example = 0)]
    pub(super) exit_code: Option<i64>,
    /// Why it ended, or did not take place, where the exit code does not say it.
    #[schema(required)]
    pub(super) outcome: Option<String>,
    /// Who asked for it; null if its time had come.
    #[schema(required, example = "token `admin`")]
    pub(super) requested_by: Option<String>,
    #[schema(example = "r01m5z8k6c0d3f")]
    pub(super) release: String,
    /// The last lines that it wrote.
    pub(super) log_tail: Vec<String>,
}

impl From<Job> for CronRunView {
    fn from(job: Job) -> Self {
        let skipped = |why: &String| why.starts_with("skipped");
        let state = match (&job.ended_at, job.exit_code, &job.outcome) {
            (None, ..) => "running",
            (_, _, Some(why)) if skipped(why) => "skipped",
            (_, Some(_), Some(_)) => "stopped",
            (_, Some(0), None) => "succeeded",
            (_, Some(_), None) => "failed",
            (_, None, _) => "lost",
        };
        let cron = job.cron.as_ref();
        let by = cron.and_then(|it| it.requested_by.as_ref());
        Self {
            state,
            due_at: cron.and_then(|it| it.due_at).map(rfc3339),
            started_at: rfc3339(job.started_at),
            ended_at: job.ended_at.map(rfc3339),
            exit_code: job.exit_code,
            requested_by: by.map(ToString::to_string),
            release: job.release.to_string(),
            outcome: job.outcome,
            log_tail: job.log_tail,
            id: job.name,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct CronPath {
    /// The app's name, as in `[apps.NAME]` of deploy.toml.
    #[param(example = "hello")]
    app: String,
    /// The command's name, as in `[apps.hello.cron.NAME]`.
    #[param(example = "cleanup")]
    name: String,
}

/// List the scheduled commands of an app
#[utoipa::path(
    get,
    path = "/api/v1/apps/{app}/cron",
    operation_id = "listCron",
    tag = "apps",
    params(AppPath),
    responses(
        (status = 200, description = "Every command", body = Page<CronView>),
        (status = 400, response = Malformed),
        (status = 404, response = UnknownApp),
        (status = 409, response = NotConfigured),
    ),
)]
pub async fn list(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
) -> Result<Json<Page<CronView>>, ApiError> {
    let app = acting(&api, &caller, Role::Read, &path.app).await?;
    let read = api.agent.store.read(move |db| of_app(db, &app));
    Ok(Json(Page::whole(read.await?)))
}

pub(super) fn of_app(
    db: &rusqlite::Connection,
    app: &App,
) -> Result<Vec<CronView>, crate::store::StoreError> {
    // Of an app that is stopped, or of which nothing is live, nothing runs.
    let runs =
        apps::serving(db, &app.name)?.live.is_some() && apps::stopped(db, &app.name)?.is_none();
    let each = app.cron.iter().map(|(name, cron)| {
        let last = jobs::last_of_cron(db, &app.name, name)?;
        let schedule = &cron.schedule;
        Ok(CronView {
            name: name.to_string(),
            schedule: schedule.text.clone(),
            timezone: schedule.timezone.clone(),
            command: cron.command.to_string(),
            next_at: schedule.next(now()).filter(|_| runs).map(rfc3339),
            last: last.map(CronRunView::from),
        })
    });
    each.collect()
}

/// List the runs of a scheduled command
///
/// Newest first.
#[utoipa::path(
    get,
    path = "/api/v1/apps/{app}/cron/{name}/runs",
    operation_id = "listCronRuns",
    tag = "apps",
    params(CronPath, PageQuery),
    responses(
        (status = 200, description = "A page of runs", body = Page<CronRunView>),
        (status = 400, response = Malformed),
        (status = 404, response = UnknownApp),
        (status = 409, response = NotConfigured),
    ),
)]
pub async fn runs(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<CronPath>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<CronRunView>>, ApiError> {
    let app = acting(&api, &caller, Role::Read, &path.app).await?;
    let name = named(&app, &path.name)?;
    let of = app.name.clone();
    let (limit, before, since) = (query.limit()?, query.cursor(), query.since()?);
    let read = api.agent.store.read(move |db| {
        let part = Part { before, since };
        jobs::of_cron(db, &of, &name, &part, limit + 1)
    });
    let runs = read.await?.into_iter().map(CronRunView::from).collect();
    Ok(Json(Page::new(runs, limit, |run| run.id.clone())))
}

/// Run a scheduled command now
///
/// In the live image, beside its schedule. Refused while it runs.
#[utoipa::path(
    post,
    path = "/api/v1/apps/{app}/cron/{name}/runs",
    operation_id = "runCron",
    tag = "apps",
    params(CronPath),
    responses(
        (status = 202, description = "It begins", body = CronRunView),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 404, response = UnknownApp),
        (status = 409, response = NotConfigured),
    ),
)]
pub async fn run(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<CronPath>,
    _: NoBody,
) -> Result<(axum::http::StatusCode, Json<CronRunView>), ApiError> {
    let app = acting(&api, &caller, Role::Deploy, &path.app).await?;
    let name = named(&app, &path.name)?;
    let job = cron::run_now(&api.agent, app, name, caller.who).await;
    let job = job.map_err(|error| match error {
        StoreError::Refused(why) => {
            ApiError::new(axum::http::StatusCode::CONFLICT, "not_run", why, "")
        }
        other => other.into(),
    })?;
    Ok((axum::http::StatusCode::ACCEPTED, Json(job.into())))
}

fn named(app: &Arc<App>, text: &str) -> Result<ServiceName, ApiError> {
    let found = app.cron.keys().find(|name| name.as_str() == text);
    found.cloned().ok_or_else(|| {
        let names: Vec<_> = app.cron.keys().map(|name| format!("`{name}`")).collect();
        let hint = match names.is_empty() {
            true => format!("add `[apps.{}.cron.NAME]` to deploy.toml", app.name),
            false => format!("it has {}", names.join(", ")),
        };
        let message = format!(
            "`{}` has no scheduled command `{}`",
            app.name,
            text.escape_debug()
        );
        ApiError::new(
            axum::http::StatusCode::NOT_FOUND,
            "unknown_cron",
            message,
            hint,
        )
    })
}
