//! What carries this agent's labels and no record names: list it, remove it, or record it again.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::page::{NamesQuery, Page};
use super::responses::{Forbidden, Malformed, Refused};
use super::view::rfc3339;
use super::{ApiError, Shared, auth, json};
use crate::deploy::orphans::adopt::{self, Outcome};
use crate::deploy::orphans::gc::{self, Item, Removed};
use crate::deploy::orphans::{self, Kind, Orphan, OrphanError};
use crate::ids::AppName;
use crate::principal::{Principal, Role};

/// Something in Docker that this agent, or one with the same data folder, made, and that the database
/// does not know.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Orphan)]
pub struct OrphanView {
    kind: Kind,
    /// As Docker knows it; a volume's is its name.
    id: String,
    #[schema(example = "cutover-hello-d01m5z8k2q4x7a-0")]
    name: String,
    #[schema(required, example = "hello")]
    app: Option<String>,
    #[schema(format = DateTime, example = "2026-05-04T09:30:00.000Z")]
    created_at: String,
    /// Its size in bytes, where Docker says it.
    #[schema(required, example = 4096)]
    size: Option<u64>,
    /// Why it is listed.
    reason: String,
    /// Why it will not be removed; null if it can be.
    #[schema(required)]
    in_use: Option<String>,
    /// What the list is sorted by.
    #[serde(skip)]
    #[schema(ignore)]
    key: String,
}

impl From<Orphan> for OrphanView {
    fn from(it: Orphan) -> Self {
        Self {
            key: format!("{} {} {}", it.kind as u8, it.name, it.id),
            kind: it.kind,
            id: it.id,
            name: it.name,
            app: it.app,
            created_at: rfc3339(it.created_at),
            size: it.size,
            reason: it.reason,
            in_use: it.in_use,
        }
    }
}

impl From<OrphanError> for ApiError {
    fn from(error: OrphanError) -> Self {
        match error {
            OrphanError::Store(error) => error.into(),
            OrphanError::Engine(error) => error.into(),
        }
    }
}

/// List what the database does not know
///
/// Containers, networks, images and volumes with this agent's labels that no record names: the database
/// was lost or restored from a backup. Nothing of it is removed without a request.
#[utoipa::path(
    get,
    path = "/api/v1/orphans",
    operation_id = "listOrphans",
    tag = "agent",
    params(NamesQuery),
    responses(
        (status = 200, description = "Sorted by kind and name", body = Page<OrphanView>),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
    ),
)]
pub async fn list(
    State(api): Shared,
    caller: Principal,
    Query(query): Query<NamesQuery>,
) -> Result<Json<Page<OrphanView>>, ApiError> {
    auth::check_server(&caller, Role::Admin)?;
    let all = orphans::list(&api.agent).await?.into_iter();
    let mut all: Vec<OrphanView> = all.map(OrphanView::from).collect();
    all.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(Json(Page::by_name(all, query, |it| &it.key)?))
}

/// What to remove.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GcRequest)]
struct GcBody {
    #[serde(default)]
    #[schema(max_items = 500)]
    items: Vec<Item>,
}

/// What was removed, and what was not.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Gc)]
pub struct GcView {
    removed: Vec<OrphanView>,
    left: Vec<LeftItem>,
}

/// Something that was not removed.
#[derive(Debug, Serialize, ToSchema)]
struct LeftItem {
    kind: Kind,
    id: String,
    reason: String,
}

impl From<Removed> for GcView {
    fn from(done: Removed) -> Self {
        let left = done.left.into_iter().map(|(item, reason)| LeftItem {
            kind: item.kind,
            id: item.id,
            reason,
        });
        Self {
            removed: done.removed.into_iter().map(OrphanView::from).collect(),
            left: left.collect(),
        }
    }
}

/// Remove what the database does not know
///
/// Removes those of the given items that are still listed by `GET /api/v1/orphans` and not in use. The
/// anonymous volumes of a container stay; they are items of their own.
#[utoipa::path(
    post,
    path = "/api/v1/gc",
    operation_id = "removeOrphans",
    tag = "agent",
    request_body = GcBody,
    responses(
        (status = 200, description = "What was removed", body = GcView),
        Refused,
    ),
)]
pub async fn gc(
    State(api): Shared,
    caller: Principal,
    body: Bytes,
) -> Result<Json<GcView>, ApiError> {
    auth::check_server(&caller, Role::Admin)?;
    let body: GcBody = json::parse(&body)?;
    let removed = gc::gc(&api.agent, body.items, caller.who).await?;
    Ok(Json(removed.into()))
}

/// What to adopt.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AdoptRequest)]
struct AdoptBody {
    /// Only this app; all of deploy.toml if absent.
    #[schema(nullable = false, example = "hello")]
    app: Option<String>,
}

/// What was recorded again, and what was not.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Adoption)]
pub struct AdoptionView {
    adopted: Vec<AdoptedView>,
    left: Vec<LeftView>,
}

/// An app whose live release is in the database again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Adopted)]
struct AdoptedView {
    #[schema(example = "hello")]
    app: String,
    #[schema(example = "r01m5z8k6c0d3f")]
    release: String,
    #[schema(example = "cutover/hello:8f3c2a9d41b0")]
    image: String,
    containers: Vec<String>,
}

/// Something that was not recorded again.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NotAdopted)]
struct LeftView {
    #[schema(required)]
    app: Option<String>,
    name: String,
    reason: String,
}

impl From<Outcome> for AdoptionView {
    fn from(outcome: Outcome) -> Self {
        let adopted = outcome.adopted.into_iter().map(|it| AdoptedView {
            app: it.app.into(),
            release: it.release.into(),
            image: it.image,
            containers: it.containers,
        });
        let left = outcome.left.into_iter().map(|it| LeftView {
            app: it.app.map(String::from),
            name: it.name,
            reason: it.reason,
        });
        Self {
            adopted: adopted.collect(),
            left: left.collect(),
        }
    }
}

/// Record again what serves
///
/// After the database was lost or restored from a backup: records the release that serves an app, with its
/// containers, so that the next deployment replaces it without a gap and a rollback can go back to it.
#[utoipa::path(
    post,
    path = "/api/v1/adopt",
    operation_id = "adopt",
    tag = "agent",
    request_body = Option<AdoptBody>,
    responses(
        (status = 200, description = "What was recorded again", body = AdoptionView),
        Refused,
    ),
)]
pub async fn adopt(
    State(api): Shared,
    caller: Principal,
    body: Bytes,
) -> Result<Json<AdoptionView>, ApiError> {
    auth::check_role(&caller, Role::Admin)?;
    let body: AdoptBody = json::parse(&body)?;
    if body.app.is_none() {
        auth::check_server(&caller, Role::Admin)?;
    }
    let only = body.app.map(|name| name.parse::<AppName>()).transpose();
    let only = only.map_err(|error| ApiError::bad_request(error.to_string()))?;
    if let Some(app) = &only {
        auth::check(&caller, Role::Admin, app)?;
    }
    let outcome = adopt::adopt(&api.agent, only, caller.who).await?;
    Ok(Json(outcome.into()))
}
