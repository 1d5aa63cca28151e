//! Whether the agent lives, whether it can deploy, and its numbers.

use std::fmt::Write;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::time::Instant;

use super::Shared;

/// How long an answer of Docker or the proxy is good for, so that a busy monitor costs nothing.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// What was found at the last look.
#[derive(Default)]
pub struct Health(tokio::sync::Mutex<Option<(Instant, Found)>>);

#[derive(Clone)]
struct Found {
    docker: Result<(), String>,
    proxy: Result<(), String>,
}

pub async fn alive() -> &'static str {
    "ok\n"
}

/// 200 where deployments can run; 503 with what is missing. Deliveries are taken in either case.
pub async fn ready(State(api): Shared) -> Response {
    let mut last = api.health.0.lock().await;
    let found = match &*last {
        Some((at, found)) if at.elapsed() < GOOD_FOR => found.clone(),
        _ => {
            let (docker, proxy) = tokio::join!(api.agent.engine.ping(), api.agent.proxy.hello());
            let found = Found {
                docker: docker.map_err(|e| e.to_string()),
                proxy: proxy.map(drop).map_err(|e| e.to_string()),
            };
            *last = Some((Instant::now(), found.clone()));
            found
        }
    };
    let part = |part: &Result<(), String>| match part {
        Ok(()) => "ok".to_owned(),
        Err(why) => why.clone(),
    };
    let ready = found.docker.is_ok() && found.proxy.is_ok();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "ready": ready,
        "docker": part(&found.docker),
        "proxy": part(&found.proxy),
    });
    (status, Json(body)).into_response()
}

/// Prometheus' text format, version 0.0.4.
pub async fn metrics(State(api): Shared) -> Response {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, rows: Vec<(String, u64)>| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(text, "{name}{{{labels}}} {value}");
        }
    };
    let counts = api
        .agent
        .store
        .read(crate::store::deployments::counts)
        .await
        .unwrap_or_default();
    let rows = counts
        .into_iter()
        .map(|(app, state, count)| (format!("app=\"{app}\",state=\"{state}\""), count));
    family(
        "cutover_deployments",
        "gauge",
        "Deployments by state.",
        rows.collect(),
    );
    let routes = api.agent.proxy.stats().await.unwrap_or_default();
    let of = |value: fn(&crate::proxy::control::RouteStats) -> u64| {
        let mut rows = Vec::new();
        for route in &routes {
            let crate::proxy::control::RouteStats {
                app,
                release,
                generation,
                ..
            } = route;
            let labels = format!("app=\"{app}\",release=\"{release}\",generation=\"{generation}\"");
            rows.push((labels, value(route)));
        }
        rows
    };
    let requests = "Requests that were answered, by route.";
    family(
        "cutover_requests_total",
        "counter",
        requests,
        of(|route| route.requests),
    );
    let failed = "Requests that did not get the app's whole answer.";
    family(
        "cutover_requests_failed_total",
        "counter",
        failed,
        of(|route| route.failures.total()),
    );
    let in_flight = "Requests that are under way.";
    family(
        "cutover_requests_in_flight",
        "gauge",
        in_flight,
        of(|route| route.in_flight),
    );
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response()
}
