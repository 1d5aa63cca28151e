//! A deployment's log: as text, or as server-sent events.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc::Receiver;

use super::path::{DeploymentPath, FollowQuery, find};
use super::responses::{Malformed, UnknownDeployment};
use super::{Api, ApiError, Shared};
use crate::deploy::follow::{self, Piece, Until};
use crate::ids::DeploymentId;
use crate::principal::{Principal, Role};
use crate::store::deployments::Deployment;

/// Tells a client that requested a deployment and follows it at once which deployment it is.
pub const DEPLOYMENT: HeaderName = HeaderName::from_static("cutover-deployment");
/// The id of the last event. The id of every other event is the offset of the next line, in bytes.
const END: &str = "end";

/// Read the log of a deployment
///
/// As text, or as server-sent events if the request has `Accept: text/event-stream`. Each event is one
/// line; its id is where the next line begins, so that a client that reconnects with `Last-Event-ID`
/// misses nothing. An event named `end` closes the stream; its data is the deployment's state, after
/// `follow=true` its rest state as in the text. A comment is sent every 15 seconds of silence.
#[utoipa::path(
    get,
    path = "/api/v1/deployments/{id}/log",
    operation_id = "getDeploymentLog",
    tag = "deployments",
    params(
        DeploymentPath,
        FollowQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "With `Accept: text/event-stream`: the \
            id of the last event received; the log is sent from there on"),
    ),
    responses(
        (
            status = 200,
            description = "The log",
            content(
                (String = "text/plain", example = "fetching main\nstep 1/4: FROM scratch\nlive\n"),
                (String = "text/event-stream", example = "data: fetching main\nid: 14\n\n\
                    data: live\n\nevent: end\ndata: live\nid: end\n\n"),
            ),
        ),
        (status = 204, description = "`Last-Event-ID` is that of the `end` event: do not reconnect"),
        (status = 400, response = Malformed),
        (status = 404, response = UnknownDeployment),
    ),
)]
pub async fn show(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<DeploymentPath>,
    Query(query): Query<FollowQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = find(&api, &caller, Role::Read, &path.id).await?;
    let value = |name| {
        headers
            .get(name)
            .map_or(Ok(""), |value: &header::HeaderValue| value.to_str())
    };
    if !value(header::ACCEPT).is_ok_and(|kinds| kinds.contains("text/event-stream")) {
        return Ok(text(&api, found.id, query.until()));
    }
    let from = match value(HeaderName::from_static("last-event-id")) {
        Ok("") => 0,
        Ok(END) => return Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(id) => id.parse().map_err(|_| bad_id())?,
        Err(_) => return Err(bad_id()),
    };
    let events = Sse::new(events(&api, found, from, query.until()).await?);
    Ok(events.keep_alive(KeepAlive::new()).into_response())
}

fn bad_id() -> ApiError {
    ApiError::bad_request("`Last-Event-ID` must be the id of an event of this log")
}

/// The log as text. If it is followed, the last line is the rest state.
pub fn text(api: &Api, id: DeploymentId, until: Until) -> Response {
    let header = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (DEPLOYMENT, id.to_string()),
    ];
    let pieces = received(follow::follow(api.agent.clone(), id, until));
    let pieces = pieces.map(|piece| Ok::<_, Infallible>(Bytes::from(piece)));
    (header, Body::from_stream(pieces)).into_response()
}

/// The log's lines from the offset `from` on, in bytes, and its end, as events.
pub async fn events(
    api: &Api,
    deployment: Deployment,
    from: u64,
    until: Until,
) -> Result<impl Stream<Item = Result<Event, Infallible>> + Send + use<>, ApiError> {
    let pieces = follow::pieces(api.agent.clone(), deployment.id.clone(), from, until);
    let pieces = received(pieces).map(Some);
    // Until now, the pieces do not end with the deployment's state: `None` adds the last event.
    let pieces = pieces.chain(stream::iter((until == Until::Now).then_some(None)));
    let is_rest = deployment.state.is_rest();
    let state = match deployment.state {
        state if state.is_rest() => {
            let read = move |db: &_| follow::ending(db, deployment);
            api.agent.store.read(read).await?.line()
        }
        state => state.to_string(),
    };
    let mut lines = Lines {
        next: from,
        rest: vec![],
    };
    let events = pieces.flat_map(move |piece| {
        stream::iter(match piece {
            Some(Piece::Log(bytes)) => lines.take(&bytes),
            Some(Piece::End(ending)) => {
                let said = ending.line();
                vec![line(&said), end(&said).id(END)]
            }
            None if is_rest => vec![end(&state).id(END)],
            None => vec![end(&state)],
        })
    });
    Ok(events.map(Ok))
}

/// Splits a log into events.
struct Lines {
    /// The offset at which the next line begins, in bytes.
    next: u64,
    rest: Vec<u8>,
}

impl Lines {
    /// The events for the lines that `piece` completes.
    fn take(&mut self, piece: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(part);
            if let Some(text) = self.rest.strip_suffix(b"\n") {
                self.next += self.rest.len() as u64;
                events.push(line(&String::from_utf8_lossy(text)).id(self.next.to_string()));
                self.rest.clear();
            }
        }
        events
    }
}

fn line(text: &str) -> Event {
    // axum writes no data field for an empty text, and a client ignores an event without data.
    Event::default().data(if text.is_empty() { " " } else { text })
}

fn end(state: &str) -> Event {
    Event::default().event("end").data(state)
}

fn received<T: Send + 'static>(receiver: Receiver<T>) -> impl Stream<Item = T> + Send + 'static {
    stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::api::{auth::Local, fixture, router};
    use crate::deploy::intake;
    use crate::principal::Requester;
    use crate::state::Event as Change;
    use crate::store::deployments::{self as table, Trigger};

    /// What a client gets whose last event was `last`.
    async fn get(api: &std::sync::Arc<Api>, path: &str, last: &str) -> (StatusCode, String) {
        let mut request = Request::builder()
            .uri(path)
            .header("accept", "text/event-stream");
        if !last.is_empty() {
            request = request.header("last-event-id", last);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(Local { uid: 0 });
        let answer = router(api.clone()).oneshot(request).await.unwrap();
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await;
        (status, String::from_utf8(body.unwrap().to_vec()).unwrap())
    }

    /// The events that a client reads from a stream, as the HTML standard defines: name, data and id of
    /// each.
    fn parsed(stream: &str) -> Vec<(String, String, String)> {
        let (mut events, mut last) = (Vec::new(), String::new());
        let (mut name, mut data) = (String::new(), Vec::new());
        for line in stream.replace("\r\n", "\n").split(['\n', '\r']) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => name = value.into(),
                "data" => data.push(value),
                "id" => last = value.into(),
                _ if !line.is_empty() || data.is_empty() => {}
                _ => {
                    let data = std::mem::take(&mut data).join("\n");
                    events.push((std::mem::take(&mut name), data, last.clone()));
                }
            }
        }
        events
    }

    fn event(name: &str, data: &str, id: &str) -> (String, String, String) {
        (name.into(), data.into(), id.into())
    }

    #[tokio::test]
    async fn a_log_is_sent_as_events_and_resumed_where_it_broke_off() {
        let folder = tempfile::tempdir().unwrap();
        let api = fixture::api(folder.path()).await;
        let app = "hello".parse().unwrap();
        let new = intake::wished(&app, None, Trigger::Api, Requester::Agent);
        let queued = intake::deployment(&api.agent, new).await.unwrap();
        let log = api.agent.store.log_path(&queued.id);
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        std::fs::write(&log, "one\ntwo\rhalves\n\nlast\nunfinished").unwrap();
        let path = format!("/api/v1/deployments/{}/log", queued.id);

        let lines = [
            event("", "one", "4"),
            event("", "two\nhalves", "15"),
            event("", " ", "16"),
            event("", "last", "21"),
        ];
        let (_, whole) = get(&api, &path, "").await;
        let waiting = [event("end", "queued", "21")];
        assert_eq!(parsed(&whole), [&lines[..], &waiting].concat(), "{whole}");
        let (_, rest) = get(&api, &path, "15").await;
        assert_eq!(parsed(&rest), [&lines[2..], &waiting].concat(), "{rest}");

        let id = queued.id.clone();
        let cancelled = api
            .agent
            .store
            .write(move |db| table::end(db, &id, Change::Cancel, None));
        cancelled.await.unwrap();
        std::fs::write(&log, "one\n").unwrap();
        let followed = format!("{path}?follow=true");
        let (_, whole) = get(&api, &followed, "").await;
        let ended = [
            event("", "cancelled", "4"),
            event("end", "cancelled", "end"),
        ];
        assert_eq!(parsed(&whole), [&lines[..1], &ended].concat(), "{whole}");
        let (_, whole) = get(&api, &path, "").await;
        assert_eq!(
            parsed(&whole),
            [&lines[..1], &ended[1..]].concat(),
            "{whole}"
        );
        assert_eq!(
            get(&api, &followed, "end").await,
            (StatusCode::NO_CONTENT, String::new())
        );
        assert_eq!(
            get(&api, &followed, "4 or so").await.0,
            StatusCode::BAD_REQUEST
        );
    }

    #[tokio::test]
    async fn a_silent_stream_is_kept_alive() {
        let folder = tempfile::tempdir().unwrap();
        let api = fixture::api(folder.path()).await;
        let app = "hello".parse().unwrap();
        let new = intake::wished(&app, None, Trigger::Api, Requester::Agent);
        let queued = intake::deployment(&api.agent, new).await.unwrap();
        let often = KeepAlive::new().interval(std::time::Duration::from_millis(1));
        let events = events(&api, queued, 0, Until::End).await.unwrap();
        let events = Sse::new(events).keep_alive(often);
        let mut body = events.into_response().into_body();
        let frame = http_body_util::BodyExt::frame(&mut body)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(frame.into_data().unwrap(), ":\n\n");
    }
}
