//! Programs that people talk to, over a WebSocket.
//!
//! The first message is a [`Start`]. After it, what the person types comes in binary messages, and
//! [`Told`] in text messages. What the program writes goes out in binary messages that begin with its
//! stream, 1 or 2; in text messages go a [`Said`]. The last one says how the program ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::path::{AppPath, acting};
use super::responses::{Forbidden, Malformed, NotConfigured, UnknownApp};
use super::{Api, ApiError, Shared};
use crate::config::App;
use crate::deploy::session::{self, Opened, SessionError, Wanted};
use crate::engine::advice;
use crate::engine::session::{Handle, Piece};
use crate::principal::{Principal, Requester, Role};

/// The most sessions at once.
const SESSIONS: usize = 64;
/// How long the first message may take.
const FIRST: Duration = Duration::from_secs(10);
/// How often a client is asked whether it is there, and how long it may be silent.
const PING: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(60);
/// How long a client may take to read what was sent.
const STALLED: Duration = Duration::from_secs(300);
/// How long a client may take to close its side once everything is said.
const PARTING: Duration = Duration::from_secs(5);
/// The largest message, and the largest command, in bytes.
const LARGEST: usize = 256 << 10;
const LONGEST: usize = 64 << 10;
/// How much of the first output is looked at to explain a failure.
const HEAD: usize = 2000;

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
    /// For `exec`: a container's name, or a process such as `worker`.
    instance: Option<String>,
}

/// What a client tells.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    /// Columns and rows.
    Resize(u16, u16),
    Signal(String),
    /// There is no more input.
    Eof,
}

/// What a client is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Said<'a> {
    Started { container: &'a str },
    Exit { code: i64, hint: Option<&'a str> },
    Error { message: &'a str },
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
/// As in a new container; `"instance"` in the first message is a container's name or a process.
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
        let message = format!("{SESSIONS} programs are run by people already");
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
    match begin(api, app, place, who, &mut socket).await {
        Ok(opened) => attend(api, app, opened, &mut socket).await,
        Err(error) => {
            let message = error.to_string();
            let _ = say(&mut socket, &Said::Error { message: &message }).await;
        }
    }
    part(socket).await;
}

/// From the start of a program to its end.
async fn attend(api: &Api, app: &App, mut opened: Opened, socket: &mut WebSocket) {
    let container = opened.container.clone();
    tracing::info!(app = %app.name, container, "a person's program runs");
    let handle = opened.session.handle.clone();
    let ended = pass_on(api, &mut opened, socket, &handle).await;
    if let Some(head) = ended {
        tell_end(api, &handle, &head, socket).await;
    }
    opened.close(&api.agent).await;
    tracing::info!(app = %app.name, container, "a person's program has ended");
}

/// Closes the connection when the client has closed it too. What a client still sends to a socket that is
/// gone costs it what it has not read: the last words (RFC 6455, 7.1.1).
async fn part(mut socket: WebSocket) {
    let closed = async {
        socket.send(Message::Close(None)).await?;
        while socket.recv().await.transpose()?.is_some() {}
        Ok::<_, axum::Error>(())
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

/// Passes everything on until the program ends; returns the beginning of its output. `None` if the
/// client has gone.
async fn pass_on(
    api: &Api,
    opened: &mut Opened,
    socket: &mut WebSocket,
    handle: &Handle,
) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let mut heard = Instant::now();
    let mut ping = tokio::time::interval(PING);
    loop {
        tokio::select! {
            piece = opened.session.output.next() => {
                let (stream, bytes) = match piece {
                    Some(Ok(Piece::Out(bytes))) => (1, bytes),
                    Some(Ok(Piece::Err(bytes))) => (2, bytes),
                    Some(Err(_)) | None => return Some(head),
                };
                let room = HEAD.saturating_sub(head.len());
                head.extend_from_slice(&bytes[..bytes.len().min(room)]);
                let mut message = Vec::with_capacity(bytes.len() + 1);
                message.push(stream);
                message.extend_from_slice(&bytes);
                send(socket, Message::Binary(message.into())).await?;
            }
            message = socket.recv() => {
                heard = Instant::now();
                match message?.ok()? {
                    Message::Binary(bytes) => write(opened, bytes).await,
                    Message::Text(text) => match serde_json::from_str(&text).ok()? {
                        Told::Resize(columns, rows) => {
                            let _ = api.agent.engine.resize(handle, columns, rows).await;
                        }
                        Told::Signal(name) => {
                            if ["INT", "TERM", "QUIT", "HUP"].contains(&name.as_str()) {
                                let _ = api.agent.engine.signal(handle, &name).await;
                            }
                        }
                        Told::Eof => {
                            let _ = opened.session.input.shutdown().await;
                        }
                    },
                    Message::Close(_) => return None,
                    Message::Ping(_) | Message::Pong(_) => {}
                }
            }
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE {
                    return None;
                }
                send(socket, Message::Ping(Bytes::new())).await?;
            }
        }
    }
}

/// A program may have closed its input, or may not read it.
async fn write(opened: &mut Opened, bytes: Bytes) {
    let input = &mut opened.session.input;
    let write = async {
        input.write_all(&bytes).await?;
        input.flush().await
    };
    let _ = tokio::time::timeout(STALLED, write).await;
}

async fn tell_end(api: &Api, handle: &Handle, head: &[u8], socket: &mut WebSocket) {
    let _ = match api.agent.engine.ended_with(handle).await {
        Ok(Some(code)) => {
            let text = String::from_utf8_lossy(head);
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let hint = matches!(code, 126 | 127).then(|| advice::of_command(&lines));
            let hint = hint.flatten();
            say(socket, &Said::Exit { code, hint }).await
        }
        Ok(None) => {
            let message = "the program's end is not known: its container is gone";
            say(socket, &Said::Error { message }).await
        }
        Err(error) => {
            let message = error.to_string();
            say(socket, &Said::Error { message: &message }).await
        }
    };
}

async fn say(socket: &mut WebSocket, said: &Said<'_>) -> Option<()> {
    let text = serde_json::to_string(said).ok()?;
    send(socket, Message::Text(text.into())).await
}

/// `None` if the client has gone.
async fn send(socket: &mut WebSocket, message: Message) -> Option<()> {
    let sent = tokio::time::timeout(STALLED, socket.send(message));
    sent.await.ok()?.ok()
}
