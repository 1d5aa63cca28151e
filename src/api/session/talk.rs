//! What goes to and fro between a client and a program.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::extract::ws::Message;
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::api::Api;
use crate::engine::session::{Handle, Piece};
use crate::engine::{EngineError, Status, advice};

/// How often a client is asked whether it is there, and how long it may be silent.
const PING: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(60);
/// How long a client may take to read what was sent.
const STALLED: Duration = Duration::from_secs(300);
/// How long the end of a program is waited for.
const LAST: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(50);
/// How much of the first output is looked at to explain a failure.
const HEAD: usize = 2000;

/// What a client is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said<'a> {
    Started { container: &'a str },
    Exit { code: i64, hint: Option<&'a str> },
    Error { message: &'a str },
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

/// When a client was heard from the last time.
pub(super) struct Heard {
    at: Mutex<Instant>,
    /// What it sent is being passed on, and nothing is read meanwhile.
    passing_on: AtomicBool,
}

impl Default for Heard {
    fn default() -> Self {
        Self {
            at: Mutex::new(Instant::now()),
            passing_on: AtomicBool::default(),
        }
    }
}

impl Heard {
    fn is_gone(&self) -> bool {
        !self.passing_on.load(Relaxed) && self.at.lock().elapsed() > SILENCE
    }
}

/// Passes on what the program writes until it ends; returns the beginning of that. `None` if the client has
/// gone.
pub(super) async fn tell_output(
    output: &mut (impl Stream<Item = Result<Piece, EngineError>> + Unpin),
    to: &mut (impl Sink<Message> + Unpin),
    heard: &Heard,
) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let mut ping = tokio::time::interval(PING);
    loop {
        tokio::select! {
            piece = output.next() => {
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
                send(to, Message::Binary(message.into())).await?;
            }
            _ = ping.tick() => {
                if heard.is_gone() {
                    return None;
                }
                send(to, Message::Ping(Bytes::new())).await?;
            }
        }
    }
}

/// Passes on what a client sends until it goes. For a program that does not read its input, the client waits.
pub(super) async fn take_input(
    api: &Api,
    handle: &Handle,
    input: &mut (impl AsyncWrite + Unpin),
    from: &mut (impl Stream<Item = Result<Message, axum::Error>> + Unpin),
    heard: &Heard,
) {
    while let Some(Ok(message)) = from.next().await {
        *heard.at.lock() = Instant::now();
        match message {
            Message::Binary(bytes) => {
                heard.passing_on.store(true, Relaxed);
                // A program may have closed its input.
                let _ = write(input, bytes).await;
                *heard.at.lock() = Instant::now();
                heard.passing_on.store(false, Relaxed);
            }
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(Told::Resize(columns, rows)) => {
                    let _ = api.agent.engine.resize(handle, columns, rows).await;
                }
                Ok(Told::Signal(name)) => {
                    if ["INT", "TERM", "QUIT", "HUP"].contains(&name.as_str()) {
                        let _ = api.agent.engine.signal(handle, &name).await;
                    }
                }
                Ok(Told::Eof) => {
                    let _ = input.shutdown().await;
                }
                Err(_) => return,
            },
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => {}
        }
    }
}

async fn write(input: &mut (impl AsyncWrite + Unpin), bytes: Bytes) -> std::io::Result<()> {
    input.write_all(&bytes).await?;
    input.flush().await
}

pub(super) async fn tell_end(
    api: &Api,
    handle: &Handle,
    head: &[u8],
    socket: &mut (impl Sink<Message> + Unpin),
) {
    let _ = match end(api, handle).await {
        Ok(Some(code)) => {
            let hint = hint(api, handle, code, head).await;
            say(socket, &Said::Exit { code, hint }).await
        }
        Ok(None) => {
            let message = match handle {
                Handle::Job(_) => "the program's end is not known: its container is gone",
                Handle::Execution(_) => {
                    "the program closed its output without ending, and was ended"
                }
            };
            say(socket, &Said::Error { message }).await
        }
        Err(error) => {
            let message = error.to_string();
            say(socket, &Said::Error { message: &message }).await
        }
    };
}

/// How the program ended. The engine may know it a moment after the end of its output.
async fn end(api: &Api, handle: &Handle) -> Result<Option<i64>, EngineError> {
    let asked = Instant::now();
    loop {
        match api.agent.engine.ended_with(handle).await? {
            None if asked.elapsed() < LAST => tokio::time::sleep(AGAIN).await,
            ended => return Ok(ended),
        }
    }
}

/// What to do about it.
async fn hint(api: &Api, handle: &Handle, code: i64, head: &[u8]) -> Option<&'static str> {
    match (code, handle) {
        (126 | 127, _) => {
            let text = String::from_utf8_lossy(head);
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            advice::of_command(&lines)
        }
        (137, Handle::Job(ours)) => match api.agent.engine.status(ours).await {
            Ok(Status::Exited(_, true)) => Some(
                "the program was killed because it exceeded its memory limit, `memory` below `[apps.NAME.run]`",
            ),
            _ => None,
        },
        _ => None,
    }
}

pub(super) async fn say(socket: &mut (impl Sink<Message> + Unpin), said: &Said<'_>) -> Option<()> {
    let text = serde_json::to_string(said).ok()?;
    send(socket, Message::Text(text.into())).await
}

/// `None` if the client has gone.
pub(super) async fn send(
    socket: &mut (impl Sink<Message> + Unpin),
    message: Message,
) -> Option<()> {
    let sent = tokio::time::timeout(STALLED, socket.send(message));
    sent.await.ok()?.ok()
}
