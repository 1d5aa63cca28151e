//! The audit log: what people had the agent do, and who came in or was refused.

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::page::{Page, PageQuery, since};
use super::responses::{Forbidden, Malformed};
use super::view::{RequesterView, rfc3339};
use super::{ApiError, Shared, auth};
use crate::principal::{Principal, Role, Scope};
use crate::store::actions::{self, Action, Checked, Filter};

/// An entry of the audit log: something that somebody had the agent do, or that somebody came in or was
/// refused.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Action)]
pub struct ActionView {
    #[schema(example = "x01m5z8k2q4x7a")]
    id: String,
    /// Its place in the log. None is left out.
    #[schema(example = 17)]
    seq: i64,
    /// `deploy`, `rollback`, `restart`, `cancel`, `stop`, `start`, `scale`, `pin`, `unpin`, `maintenance`, `variables`, `secrets`, `rekey`, `run`, `exec`,
    /// `cron`, `log-level`, `remove`, `gc`, `adopt`, `reload`, `renew`, `create-token`, `rotate-token`, `revoke-token`,
    /// `sign-in`, `sign-out` or `refused`; there may be more one day.
    #[schema(example = "remove")]
    action: String,
    /// Null if it concerns no app, or several.
    #[schema(required, example = "hello")]
    app: Option<String>,
    #[schema(format = DateTime, example = "2026-05-04T09:30:00.000Z")]
    at: String,
    requested_by: RequesterView,
    /// What it concerned; never the value of a secret.
    #[schema(value_type = Object, example = json!({"volumes": false}))]
    detail: serde_json::Value,
    /// SHA-256, in hex, of the entry and the hash of the one before it; empty if it is older than the chain.
    hash: String,
}

impl From<Action> for ActionView {
    fn from(it: Action) -> Self {
        Self {
            at: rfc3339(it.id.made_at()),
            id: it.id.into(),
            seq: it.seq,
            action: it.kind,
            app: it.app.map(String::from),
            requested_by: it.by.into(),
            detail: it.detail,
            hash: it.hash,
        }
    }
}

/// Which part of the audit log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ActionsQuery {
    /// How many items to return at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// `next` of the previous page; the first page if absent.
    cursor: Option<String>,
    /// Only those that concern this app.
    #[param(example = "hello")]
    app: Option<String>,
    /// Only those of this kind.
    #[param(example = "rollback")]
    action: Option<String>,
    /// Only those since then: a time of RFC 3339, or how long ago, such as `2h` or `7d`.
    #[param(example = "7d")]
    since: Option<String>,
}

/// Whether the audit log is whole.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditCheck)]
pub struct CheckView {
    /// How many entries there are.
    count: u64,
    /// The place of the newest.
    seq: i64,
    /// Its hash. Noted elsewhere, it shows later that everything up to there is as it was.
    hash: String,
    /// Where the chain is broken first; null if it is whole.
    #[schema(required, example = 17)]
    broken_at: Option<i64>,
    /// How it is broken there.
    #[schema(required, example = "entry 17 is missing")]
    problem: Option<String>,
}

impl From<Checked> for CheckView {
    fn from(it: Checked) -> Self {
        let (seq, hash) = it.newest;
        let (broken_at, problem) = it.broken.unzip();
        Self {
            count: it.count,
            seq,
            hash,
            broken_at,
            problem,
        }
    }
}

/// List the audit log
///
/// Who deployed and rolled back, who removed an app, changed its secrets or its scale, reloaded deploy.toml,
/// ran a program, made a token, signed in or was refused; from where, and what it concerned. Newest first.
/// Entries are kept for 400 days.
#[utoipa::path(
    get,
    path = "/api/v1/actions",
    operation_id = "listActions",
    tag = "agent",
    params(ActionsQuery),
    responses(
        (status = 200, description = "A page of actions", body = Page<ActionView>),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
    ),
)]
pub async fn list(
    State(api): Shared,
    caller: Principal,
    Query(query): Query<ActionsQuery>,
) -> Result<Json<Page<ActionView>>, ApiError> {
    auth::check_role(&caller, Role::Admin)?;
    let page = PageQuery::of(query.limit, query.cursor);
    let (limit, cursor) = (page.limit()?, page.cursor());
    let app = query.app.map(|app| app.parse()).transpose();
    let filter = Filter {
        app: app.map_err(|error| ApiError::bad_request(format!("`app`: {error}")))?,
        kind: query.action,
        since: query.since.as_deref().map(since).transpose()?,
    };
    let seen = move |action: &Action| match &action.app {
        Some(app) => caller.sees(app),
        None => caller.apps == Scope::All,
    };
    let read = move |db: &_| actions::list(db, cursor.as_deref(), limit + 1, &filter, seen);
    let found = api.agent.store.read(read).await?;
    let shown = found.into_iter().map(ActionView::from).collect();
    Ok(Json(Page::new(shown, limit, |item| item.id.clone())))
}

/// Check the audit log
///
/// Each entry carries a hash of itself and of the one before: what was changed or deleted shows.
#[utoipa::path(
    get,
    path = "/api/v1/actions/check",
    operation_id = "checkActions",
    tag = "agent",
    responses(
        (status = 200, description = "Whether it is whole", body = CheckView),
        (status = 403, response = Forbidden),
    ),
)]
pub async fn check(State(api): Shared, caller: Principal) -> Result<Json<CheckView>, ApiError> {
    auth::check_server(&caller, Role::Admin)?;
    let checked = api.agent.store.read(actions::check).await?;
    Ok(Json(checked.into()))
}
