//! What keeps an open page up to date: one stream of events a page, since browsers open few connections
//! to one host. An event `changed` says that the page is out of date; where asked for, the lines of a
//! deployment's log or of an app's output come with it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, BoxStream, StreamExt};

use super::fields::Fields;
use super::refusal::{For, Result};
use super::viewer::Viewer;
use crate::api::path::{find, known};
use crate::api::{Api, Shared, log};
use crate::deploy::follow::Until;
use crate::deploy::output::{self, Query};
use crate::deploy::short_name;
use crate::ids::AppName;
use crate::principal::Role;

/// The shortest time between two events that the page has changed.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a stream lasts before the browser begins another: a session that has ended sees no more.
const LONGEST: Duration = Duration::from_secs(600);

/// How soon a browser begins another one.
const AGAIN: Duration = Duration::from_millis(1000);

type Events = BoxStream<'static, std::result::Result<Event, Infallible>>;

pub async fn show(
    State(api): Shared,
    viewer: Viewer,
    fields: Fields,
    headers: HeaderMap,
) -> Result {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let mut events = changes(&api);
    if let Some(id) = fields.get("deployment") {
        let found = find(&api, &viewer.principal, Role::Read, id).await;
        let found = found.told(&viewer)?;
        let from = last.or(fields.get("from")).unwrap_or("0");
        if let Ok(from) = from.parse() {
            let lines = log::events(&api, found, from, Until::End).await;
            let lines: Events = lines.told(&viewer)?.boxed();
            events = stream::select(events, lines).boxed();
        }
    }
    if let Some(app) = fields.get("app") {
        let app = known(&api, &viewer.principal, Role::Read, app).await;
        let app = app.told(&viewer)?;
        let since = last.or(fields.get("from")).map(str::to_owned);
        let lines = output(&api, app, &fields, since);
        events = stream::select(events, lines).boxed();
    }
    let events = events.take_until(tokio::time::sleep(LONGEST));
    Ok(stream(events.boxed()))
}

fn stream(events: Events) -> Response {
    let sse = Sse::new(events).keep_alive(KeepAlive::new());
    // nginx would hold the events back.
    ([("x-accel-buffering", "no")], sse).into_response()
}

/// An event at once, since the page may have become out of date on its way, and with each change.
fn changes(api: &Arc<Api>) -> Events {
    let changes = api.agent.hub.changes();
    let each = stream::unfold((changes, true), |(mut changes, first)| async move {
        if !first {
            changes.changed().await.ok()?;
            tokio::time::sleep(PAUSE).await;
        }
        let count = *changes.borrow_and_update();
        let event = Event::default().event("changed").data(count.to_string());
        let event = if first { event.retry(AGAIN) } else { event };
        Some((Ok(event), (changes, false)))
    });
    each.boxed()
}

/// The lines of an app after the time `since`, each as JSON; its id is its time.
fn output(api: &Api, app: AppName, fields: &Fields, since: Option<String>) -> Events {
    let seconds = since.as_deref().and_then(super::parts::moment);
    let query = Query {
        lines: if seconds.is_some() { 1000 } else { 0 },
        since: seconds.map(|time| time.unix_timestamp()),
        instance: fields.get("instance").map(str::to_owned),
        process: fields.get("process").map(str::to_owned),
        grep: fields.get("grep").map(str::to_owned),
        follow: true,
    };
    let lines = output::output(api.agent.clone(), app, query);
    let lines = stream::unfold(lines, |mut lines| async move {
        lines.recv().await.map(|line| (line, lines))
    });
    let since = since.unwrap_or_default();
    let lines = lines.filter(move |said| {
        let is_new = said.line.time.as_str() > since.as_str();
        async move { is_new }
    });
    let events = lines.map(|said| {
        let name = short_name(&said.instance).unwrap_or_default();
        let text = serde_json::json!({ "instance": said.instance, "name": name,
            "text": said.line.text, "time": said.line.time, "stream": said.line.stream });
        Ok(Event::default()
            .event("output")
            .id(said.line.time)
            .data(text.to_string()))
    });
    events.boxed()
}
