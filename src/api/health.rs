//! Whether the agent is running, and whether it can deploy.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::view::rfc3339;
use super::{Shared, auth};
use crate::deploy::Agent;
use crate::deploy::space::Space;
use crate::store::runs;

/// How long an answer from Docker or the proxy is reused, so that frequent checks cost nothing.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// How long the database may take to write next to nothing.
const WRITE: Duration = Duration::from_secs(5);
/// With less free space than this, in bytes, the disk is full.
const FULL: u64 = 1 << 20;

/// What the last check found.
#[derive(Default)]
pub struct Health(tokio::sync::Mutex<Option<(Instant, Found)>>);

#[derive(Clone)]
struct Found {
    docker: Result<(), String>,
    proxy: Result<(), String>,
    database: Result<(), String>,
}

/// Whether deployments can run.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ready {
    ready: bool,
    /// `ok`, or why Docker cannot be used.
    #[schema(example = "ok")]
    docker: String,
    /// `ok`, or why the proxy cannot be used.
    #[schema(example = "ok")]
    proxy: String,
    /// `ok`, or why nothing can be recorded.
    #[schema(example = "ok")]
    database: String,
    /// What does not run as it should; the agent puts it right where it can.
    differences: Vec<String>,
    /// What works and is likely to surprise: volumes that no deployment carries over, limits of builds that do not
    /// hold.
    warnings: Vec<String>,
    /// Since when Docker has not answered; null while it does.
    #[schema(required, format = DateTime)]
    docker_away_since: Option<String>,
}

/// Check that the agent is alive
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "getHealth",
    tag = "agent",
    responses((status = 200, description = "The agent is alive", body = String, example = "ok\n")),
)]
pub async fn alive() -> &'static str {
    "ok\n"
}

/// Check that deployments can run
///
/// Webhook deliveries are accepted in either case. If `agent.domain` is set, only whoever has a token for
/// all apps, or comes over the Unix socket, is told more than `ready`.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "getReadiness",
    tag = "agent",
    responses(
        (status = 200, description = "Deployments can run", body = Ready),
        (status = 503, description = "Docker or the proxy does not answer, or nothing can be recorded", body = Ready),
    ),
)]
pub async fn ready(State(api): Shared, request: Request) -> Response {
    let request = request.into_parts().0;
    let sees = auth::sees_server(&api, &request).await;
    let mut last = api.health.0.lock().await;
    let found = match &*last {
        Some((at, found)) if at.elapsed() < GOOD_FOR => found.clone(),
        _ => {
            let (docker, proxy, database) = tokio::join!(
                api.agent.engine.ping(),
                api.agent.proxy.hello(),
                database(&api.agent)
            );
            let found = Found {
                docker: docker.map_err(|e| e.to_string()),
                proxy: proxy.map(drop).map_err(|e| e.to_string()),
                database,
            };
            *last = Some((Instant::now(), found.clone()));
            found
        }
    };
    let part = |part: &Result<(), String>| match part {
        Ok(()) => "ok".to_owned(),
        Err(_) if !sees => "it cannot be used".to_owned(),
        Err(why) => why.clone(),
    };
    let mut warnings = api.agent.tend.volumes(None);
    warnings.extend(api.agent.unlimited.lock().clone());
    let told = |all: Vec<String>| if sees { all } else { Vec::new() };
    let ready = found.docker.is_ok() && found.proxy.is_ok() && found.database.is_ok();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = Ready {
        ready,
        docker: part(&found.docker),
        proxy: part(&found.proxy),
        database: part(&found.database),
        differences: told(api.agent.tend.differences(None)),
        warnings: told(warnings),
        docker_away_since: api.agent.tend.engine_away_since().map(rfc3339),
    };
    (status, Json(body)).into_response()
}

/// Whether something can be recorded: by writing, as a disk may refuse for many reasons.
async fn database(agent: &Agent) -> Result<(), String> {
    let folder = agent.in_force().config.agent.data_dir.clone();
    let shown = folder.display().to_string();
    let space = tokio::task::spawn_blocking(move || Space::of(&folder)).await;
    // SQLite may have room in its own files for a while.
    if let Ok(Ok(space)) = space
        && space.free < FULL
    {
        return Err(format!("the disk of `{shown}` is full"));
    }
    match tokio::time::timeout(WRITE, agent.store.write(runs::touch)).await {
        Ok(written) => written.map_err(|error| error.to_string()),
        Err(_) => Err("the database takes too long to write".to_owned()),
    }
}
