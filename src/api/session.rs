//! Programs that people talk to, over a WebSocket.
//!
//! The first message is a [`Start`]. After it, binary messages are what the person types; text messages are
//! sizes, signals and the end of the input. Output goes out in binary messages that begin with their stream,
//! 1 or 2; text messages are a [`talk::Said`], of which the last says how the program ended.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use futures_util::{Sink, Stream, StreamExt};
use serde::Deserialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::path::{AppPath, acting};
use super::responses::{Forbidden, Malformed, NotConfigured, TooManySessions, UnknownApp};
use super::{Api, ApiError, Shared};
use crate::config::App;
use crate::deploy::session::{self, Opened, SessionError, Wanted};
use crate::engine::session::Session;
use crate::principal::{Principal, Requester, Role};

mod talk;

use talk::{Heard, Said, say, send, take_input, tell_end, tell_output};

/// The most sessions at once.
const SESSIONS: usize = 64;
/// How long the first message may take.
const FIRST: Duration = Duration::from_secs(10);
/// How long a client may take to close its side once everything is said.
const PARTING: Duration = Duration::from_secs(5);
/// The largest message, and the largest command, in bytes.
const LARGEST: usize = 256 << 10;
const LONGEST: usize = 64 << 10;

/// Places for sessions.
pub struct Sessions(Arc<Semaphore>);

impl Default for Sessions {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SESSIONS)))
    }
}

/// The first message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Start {
    /// A program and its arguments.
    command: Vec<String>,
    #[serde(default)]
    terminal: bool,
    /// Columns and rows.
    size: Option<(u16, u16)>,
    /// For `exec`: a container's name or the end of it, such as `worker-1`, or a process.
    instance: Option<String>,
}

type Upgrade = Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    OwnContainer,
    Instance,
}

/// Run a program in a new container
///
/// With the image, the settings and the secrets of the live release; a WebSocket. The first message is
/// `{"command": ["rails", "console"], "terminal": true, "size": [80, 24]}`. Then binary messages are the
/// program's input, and `{"resize": [100, 30]}`, `{"signal": "INT"}` and `"eof"` what they say. Its
/// output comes in binary messages of which the first byte is the stream, 1 or 2; the last message is
/// `{"exit": {"code": 0, "hint": null}}` or `{"error": {"message": "…"}}`. When the connection ends, so
/// does the program, and its container is removed.
#[utoipa::path(
    get,
    path = "/api/v1/apps/{app}/run",
    operation_id = "runProgram",
    tag = "apps",
    params(AppPath),
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 404, response = UnknownApp),
        (status = 409, response = NotConfigured),
        (status = 503, response = TooManySessions),
    ),
)]
pub async fn run(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    headers: HeaderMap,
    socket: Upgrade,
) -> Result<Response, ApiError> {
    open(
        api,
        caller,
        &path.app,
        &headers,
        socket,
        Where::OwnContainer,
    )
    .await
}

/// Run a program in a running instance
///
/// As in a new container; `"instance"` in the first message is a container's name or the end of it, such as `web-1`
/// or `worker-0`, or a process.
#[utoipa::path(
    get,
    path = "/api/v1/apps/{app}/exec",
    operation_id = "execProgram",
    tag = "apps",
    params(AppPath),
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 400, response = Malformed),
        (status = 403, response = Forbidden),
        (status = 404, response = UnknownApp),
        (status = 409, response = NotConfigured),
        (status = 503, response = TooManySessions),
    ),
)]
pub async fn exec(
    State(api): Shared,
    caller: Principal,
    Path(path): Path<AppPath>,
    headers: HeaderMap,
    socket: Upgrade,
) -> Result<Response, ApiError> {
    open(api, caller, &path.app, &headers, socket, Where::Instance).await
}

async fn open(
    api: Arc<Api>,
    caller: Principal,
    app: &str,
    headers: &HeaderMap,
    socket: Upgrade,
    place: Where,
) -> Result<Response, ApiError> {
    let app = acting(&api, &caller, Role::Admin, app).await?;
    if is_foreign(headers) {
        let message = "a page of another site may not open this";
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "foreign_origin",
            message,
            "",
        ));
    }
    let socket = socket.map_err(|error| ApiError::bad_request(format!("a WebSocket: {error}")))?;
    let Ok(place_taken) = api.sessions.0.clone().try_acquire_owned() else {
        let message = format!("{SESSIONS} programs of `run` and `exec` are running already");
        let hint = "end one of them, or wait";
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_sessions",
            message,
            hint,
        ));
    };
    let socket = socket.max_message_size(LARGEST).max_frame_size(LARGEST);
    Ok(socket.on_upgrade(move |socket| async move {
        let _place = place_taken;
        talk(&api, &app, place, caller.who, socket).await;
    }))
}

/// Whether a browser sent it for a page of another site.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|it| it.to_str().unwrap_or_default());
    let Some(origin) = text(header::ORIGIN) else {
        return false;
    };
    let host = origin.split_once("://").map(|(_, host)| host);
    host != text(header::HOST)
}

async fn talk(api: &Api, app: &App, place: Where, who: Requester, mut socket: WebSocket) {
    let began = begin(api, app, place, who, &mut socket).await;
    let (mut to, mut from) = socket.split();
    match began {
        Ok(opened) => attend(api, app, opened, &mut to, &mut from).await,
        Err(error) => {
            let message = error.to_string();
            let _ = say(&mut to, &Said::Error { message: &message }).await;
        }
    }
    part(&mut to, &mut from).await;
}

/// From the start of a program to its end.
async fn attend(
    api: &Api,
    app: &App,
    mut opened: Opened,
    to: &mut (impl Sink<Message> + Unpin),
    from: &mut (impl Stream<Item = Result<Message, axum::Error>> + Unpin),
) {
    let container = opened.container.clone();
    tracing::info!(app = %app.name, container, "a person's program runs");
    let handle = opened.session.handle.clone();
    let heard = Heard::default();
    let Session { output, input, .. } = &mut opened.session;
    // Neither waits for the other: a program may write before it has read everything.
    let ended = tokio::select! {
        ended = tell_output(output, to, &heard) => ended,
        () = take_input(api, &handle, input, from, &heard) => None,
    };
    if let Some(head) = ended {
        tell_end(api, &handle, &head, to).await;
    }
    opened.close(&api.agent).await;
    tracing::info!(app = %app.name, container, "a person's program has ended");
}

/// Closes the connection when the client has closed it too. What a client still sends to a socket that is
/// gone costs it what it has not read: the last words (RFC 6455, 7.1.1).
async fn part(
    to: &mut (impl Sink<Message> + Unpin),
    from: &mut (impl Stream<Item = Result<Message, axum::Error>> + Unpin),
) {
    let closed = async {
        send(to, Message::Close(None)).await?;
        while from.next().await.is_some_and(|it| it.is_ok()) {}
        Some(())
    };
    let _ = tokio::time::timeout(PARTING, closed).await;
}

async fn begin(
    api: &Api,
    app: &App,
    place: Where,
    who: Requester,
    socket: &mut WebSocket,
) -> Result<Opened, SessionError> {
    let wrong = |why: &str| SessionError::Wrong(why.to_owned());
    let first = tokio::time::timeout(FIRST, socket.recv()).await;
    let text = match first {
        Ok(Some(Ok(Message::Text(text)))) => text,
        _ => return Err(wrong("the first message must say what to run")),
    };
    let start: Start = serde_json::from_str(&text)
        .map_err(|_| wrong("the first message must be `{\"command\": [\"program\"]}`"))?;
    let length: usize = start.command.iter().map(String::len).sum();
    let named = start.command.first().is_some_and(|it| !it.is_empty());
    if !named || length > LONGEST || start.command.iter().any(|it| it.contains('\0')) {
        return Err(wrong("`command` must be a program and its arguments"));
    }
    let wanted = Wanted {
        argv: start.command,
        terminal: start.terminal,
    };
    let opened = match place {
        Where::OwnContainer => session::run(&api.agent, app, wanted, who).await?,
        Where::Instance => session::exec(&api.agent, app, wanted, start.instance, who).await?,
    };
    if let Some((columns, rows)) = start.size.filter(|_| start.terminal) {
        let _ = api
            .agent
            .engine
            .resize(&opened.session.handle, columns, rows)
            .await;
    }
    let container = &opened.container;
    let _ = say(socket, &Said::Started { container }).await;
    Ok(opened)
}
