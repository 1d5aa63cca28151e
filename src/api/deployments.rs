//! Ask for a deployment or a rollback, look at one, follow it, cancel it.

use std::convert::Infallible;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Deserialize;

use super::view::{self, DeploymentView};
use super::{Api, ApiError, Shared, apps, json};
use crate::deploy::{follow, intake, rollback};
use crate::ids::DeploymentId;
use crate::state::{Event, State as DeploymentState};
use crate::store::deployments::{self as table, Deployment, Trigger};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeployBody {
    r#ref: Option<String>,
    /// Set by the command line, so that the history tells the two apart.
    trigger: Option<Trigger>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackBody {
    to: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowQuery {
    #[serde(default)]
    follow: bool,
}

/// Longer names of refs do not exist in practice.
const LONGEST_NAME: usize = 255;

pub async fn deploy(
    State(api): Shared,
    Path(name): Path<String>,
    Query(query): Query<FollowQuery>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let app = apps::named(&api, &name)?;
    let body: DeployBody = json::parse(&body)?;
    let wanted = checked(body.r#ref, "ref")?;
    let trigger = match body.trigger {
        None | Some(Trigger::Api) => Trigger::Api,
        Some(Trigger::Cli) => Trigger::Cli,
        Some(_) => return Err(ApiError::bad_request("`trigger` is `api` or `cli`")),
    };
    let new = intake::wished(&app.name, wanted, trigger);
    let queued = intake::deployment(&api.agent, new).await?;
    answer(&api, queued, query.follow).await
}

pub async fn rollback(
    State(api): Shared,
    Path(name): Path<String>,
    Query(query): Query<FollowQuery>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let app = apps::named(&api, &name)?;
    let body: RollbackBody = json::parse(&body)?;
    let to = checked(body.to, "to")?;
    let queued = rollback::ask(&api.agent, &app.name, to).await;
    let queued = queued.map_err(|error| {
        ApiError::from(error).or_hint(format!("`cutover releases {}` lists them", app.name))
    })?;
    answer(&api, queued, query.follow).await
}

fn checked(text: Option<String>, what: &str) -> Result<Option<String>, ApiError> {
    match text {
        Some(text) if text.is_empty() || text.len() > LONGEST_NAME => Err(ApiError::bad_request(
            format!("`{what}` is a name of 1 to {LONGEST_NAME} characters"),
        )),
        other => Ok(other),
    }
}

/// 202 and the deployment, or its log for as long as it runs.
async fn answer(api: &Api, queued: Deployment, follow: bool) -> Result<Response, ApiError> {
    if follow {
        let id = queued.id.clone();
        let mut response = stream_text(api, id, true);
        *response.status_mut() = StatusCode::ACCEPTED;
        return Ok(response);
    }
    let shown = api
        .agent
        .store
        .read(move |db| view::deployment(db, queued))
        .await?;
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

pub async fn show(
    State(api): Shared,
    Path(id): Path<String>,
) -> Result<Json<DeploymentView>, ApiError> {
    let found = find(&api, &id).await?;
    Ok(Json(
        api.agent
            .store
            .read(move |db| view::deployment(db, found))
            .await?,
    ))
}

pub async fn log(
    State(api): Shared,
    Path(id): Path<String>,
    Query(query): Query<FollowQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = find(&api, &id).await?;
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    if accept.contains("text/event-stream") {
        return Ok(stream_events(&api, found.id, query.follow));
    }
    Ok(stream_text(&api, found.id, query.follow))
}

fn stream_text(api: &Api, id: DeploymentId, follow: bool) -> Response {
    let header = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        // Which deployment it is, for who asked for one and followed it at once.
        (
            header::HeaderName::from_static("cutover-deployment"),
            id.to_string(),
        ),
    ];
    let pieces = pieces(api, id, follow).map(|piece| Ok::<_, Infallible>(Bytes::from(piece)));
    (header, Body::from_stream(pieces)).into_response()
}

/// Server-sent events: one a line of the log, and one named `end` with how it ended.
fn stream_events(api: &Api, id: DeploymentId, follow: bool) -> Response {
    let lines = pieces(api, id, follow).scan(Vec::new(), |rest, piece| {
        rest.extend_from_slice(&piece);
        let complete = rest
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let whole: Vec<u8> = rest.drain(..complete).collect();
        let text = String::from_utf8_lossy(&whole);
        let events: String = text
            .lines()
            .map(|line| format!("data: {line}\n\n"))
            .collect();
        std::future::ready(Some(Ok::<_, Infallible>(Bytes::from(events))))
    });
    let end =
        futures_util::stream::once(std::future::ready(Ok(Bytes::from("event: end\ndata:\n\n"))));
    let header = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (header, Body::from_stream(lines.chain(end))).into_response()
}

fn pieces(
    api: &Api,
    id: DeploymentId,
    follow: bool,
) -> impl futures_util::Stream<Item = Vec<u8>> + use<> {
    let receiver = follow::follow(api.agent.clone(), id, follow);
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    })
}

pub async fn cancel(State(api): Shared, Path(id): Path<String>) -> Result<Response, ApiError> {
    let found = find(&api, &id).await?;
    let id = found.id.clone();
    let now = api.agent.store.write(move |db| {
        let Some(found) = table::get(db, &id)? else {
            return Ok(None);
        };
        if found.state == DeploymentState::Queued {
            table::end(db, &id, Event::Cancel, None)?;
        }
        table::get(db, &id)
    });
    let now = now
        .await?
        .ok_or_else(|| ApiError::no_such_deployment(found.id.as_str()))?;
    let over =
        now.state.is_switched() || now.state.is_rest() && now.state != DeploymentState::Cancelled;
    if over {
        let message = format!(
            "`{}` is {}; it cannot be cancelled any more",
            now.id, now.state
        );
        let hint = "a rollback goes back to the release before";
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "too_late",
            message,
            hint,
        ));
    }
    api.agent.hub.cancel(&now.id);
    api.agent.hub.changed();
    let shown = api
        .agent
        .store
        .read(move |db| view::deployment(db, now))
        .await?;
    Ok((StatusCode::ACCEPTED, Json(shown)).into_response())
}

async fn find(api: &Api, text: &str) -> Result<Deployment, ApiError> {
    let missing = || ApiError::no_such_deployment(text);
    let id: DeploymentId = text.parse().map_err(|_| missing())?;
    api.agent
        .store
        .read(move |db| table::get(db, &id))
        .await?
        .ok_or_else(missing)
}
