//! The instances of an app.

use std::collections::HashSet;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::page::{NamesQuery, Page};
use super::path::{AppPath, known};
use super::responses::{Malformed, UnknownApp};
use super::{Api, ApiError, Shared};
use crate::ids::AppName;
use crate::principal::{Principal, Role};
use crate::store::{StoreError, apps, instances, releases};

/// One container of an app.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Instance)]
pub struct InstanceView {
    /// The container's name.
    #[schema(example = "cutover-hello-d01m5z8k2q4x7a-worker-0")]
    pub name: String,
    #[schema(example = "worker")]
    pub process: String,
    #[schema(example = "r01m5z8k6c0d3f")]
    pub release: String,
    /// The full commit id; null if the release is not known any more.
    #[schema(required, example = "8f3c2a9d41b07e65c1d2f0a8b94e7763d5102c9e")]
    pub commit: Option<String>,
    /// `running`; `starting` until its release is live, `warm` where it can still come back to that,
    /// `stopping`; or what is wrong: `stopped`, `removed`, `paused`, `disconnected`, `crashed`,
    /// `elsewhere`.
    #[schema(example = "running")]
    pub state: String,
    /// More about what is wrong.
    #[schema(required)]
    pub detail: Option<String>,
}

/// List the instances of an app
///
/// Those of its live release, and those that are starting, warm or stopping.
#[utoipa::path(
    get,
    path = "/api/v1/apps/{app}/instances",
    operation_id = "listInstances",
    tag = "apps",
    params(AppPath, NamesQuery),
    responses(
        (status = 200, description = "Instances, sorted by name", body = Page<InstanceView>),
        (status = 400, response = Malformed),
        (status = 404, response = UnknownApp),
    ),
)]
pub async fn list(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    Query(query): Query<NamesQuery>,
) -> Result<Json<Page<InstanceView>>, ApiError> {
    let app = known(&api, &caller, Role::Read, &path.app).await?;
    let mut all = of_app(&api, app).await?;
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(Page::by_name(all, query, |it| &it.name)?))
}

pub async fn of_app(api: &Api, app: AppName) -> Result<Vec<InstanceView>, StoreError> {
    let tend = api.agent.tend.clone();
    let read = api.agent.store.read(move |db| {
        let live = apps::serving(db, &app)?.live;
        let retiring: HashSet<_> = (instances::retiring(db)?.into_iter())
            .map(|it| it.name)
            .collect();
        let mut all = Vec::new();
        for instance in instances::of_app(db, &app)? {
            let release = releases::get(db, &instance.release)?;
            let went_live = release.as_ref().is_some_and(|it| it.went_live.is_some());
            let trouble = tend.trouble(&instance.name);
            let (state, detail) = match trouble {
                _ if retiring.contains(&instance.name) => ("stopping", None),
                _ if Some(&instance.release) != live.as_ref() => match went_live {
                    true => ("warm", None),
                    false => ("starting", None),
                },
                Some((trouble, detail)) => (trouble.as_str(), Some(detail)),
                None => ("running", None),
            };
            all.push(InstanceView {
                name: instance.name,
                process: instance.service.to_string(),
                release: instance.release.to_string(),
                commit: release.map(|it| it.commit.to_string()),
                state: state.to_owned(),
                detail,
            });
        }
        Ok(all)
    });
    read.await
}
