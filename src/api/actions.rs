//! What people had the agent do.

use axum::Json;
use axum::extract::{Query, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::page::{Page, PageQuery};
use super::responses::{Forbidden, Malformed};
use super::view::{RequesterView, rfc3339};
use super::{ApiError, Shared, auth};
use crate::principal::{Principal, Role, Scope};
use crate::store::actions::{self, Action};

/// Something that a person had the agent do other than to deploy. Deployments say themselves who
/// requested and who cancelled them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Action)]
pub struct ActionView {
    #[schema(example = "x01m5z8k2q4x7a")]
    id: String,
    /// `remove`, `gc`, `adopt`, `reload`, `scale`, `secrets`, `rekey`, `create-token` or `revoke-token`; there
    /// may be more one day.
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
}

impl From<Action> for ActionView {
    fn from(it: Action) -> Self {
        Self {
            at: rfc3339(it.id.made_at()),
            id: it.id.into(),
            action: it.kind,
            app: it.app.map(String::from),
            requested_by: it.by.into(),
            detail: it.detail,
        }
    }
}

/// List what people had the agent do
///
/// Who removed an app, changed its secrets or its scale, reloaded deploy.toml, removed or adopted what the
/// database did not know. Newest first.
#[utoipa::path(
    get,
    path = "/api/v1/actions",
    operation_id = "listActions",
    tag = "agent",
    params(PageQuery),
    responses(
        (status = 200, description = "A page of actions", body = Page<ActionView>),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
    ),
)]
pub async fn list(
    State(api): Shared,
    caller: Principal,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ActionView>>, ApiError> {
    auth::check_role(&caller, Role::Admin)?;
    let (limit, cursor) = (query.limit()?, query.cursor());
    let seen = move |action: &Action| match &action.app {
        Some(app) => caller.sees(app),
        None => caller.apps == Scope::All,
    };
    let read = move |db: &_| actions::list(db, cursor.as_deref(), limit + 1, seen);
    let found = api.agent.store.read(read).await?;
    let shown = found.into_iter().map(ActionView::from).collect();
    Ok(Json(Page::new(shown, limit, |item| item.id.clone())))
}
