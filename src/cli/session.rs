//! `cutover run` and `cutover exec`: a program in an app's image, as if it ran here.

use std::io::{IsTerminal, stderr, stdin, stdout};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::tungstenite::{self, Message};

use super::client::{Client, view};
use super::{Error, Global};

/// The exit codes that a shell gives for SIGPIPE and SIGHUP: nobody reads the output any more, or the
/// terminal is gone.
const UNREAD: u8 = 128 + 13;
const HUNG_UP: u8 = 128 + 1;
/// Those for SIGINT and SIGTERM, where the program cannot be told of them.
const INTERRUPTED: u8 = 128 + 2;
const TERMINATED: u8 = 128 + 15;
/// How long the agent of a running program may say nothing: it asks every 15 seconds whether anybody is there.
const SILENCE: Duration = Duration::from_secs(60);
/// How long the program's end may take to arrive when nothing can be sent any more.
const LAST: Duration = Duration::from_secs(2);

/// Run a program in a new container of the live release, which is removed afterwards
///
/// It gets the app's environment, secrets, volumes and limits. The image's ENTRYPOINT is left out. The exit
/// code is the program's.
#[derive(Debug, Args)]
pub struct Run {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    #[command(flatten)]
    program: Program,
}

/// Run a program in a running instance
///
/// The exit code is the program's.
#[derive(Debug, Args)]
pub struct Exec {
    /// Name of the app, as in `[apps.NAME]`
    app: String,
    /// The container's name or the end of it (web-1), or a process (worker); default: an instance of web
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    #[command(flatten)]
    program: Program,
}

#[derive(Debug, Args)]
struct Program {
    /// With a terminal; the default if this is one
    #[arg(short, long)]
    tty: bool,
    /// Without a terminal
    #[arg(short = 'T', long, conflicts_with = "tty")]
    no_tty: bool,
    /// Taken for granted: what is typed or piped is always passed on
    #[arg(short, long, hide = true)]
    interactive: bool,
    /// The program and its arguments
    #[arg(last = true, value_name = "COMMAND", default_value = "/bin/sh")]
    command: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Started {},
    Exit { code: i64, hint: Option<String> },
    Error { message: String },
}

pub async fn run(args: Run, global: &Global) -> Result<ExitCode, Error> {
    let path = format!("/api/v1/apps/{}/run", view::segment(&args.app));
    session(&path, args.program, None, global).await
}

pub async fn exec(args: Exec, global: &Global) -> Result<ExitCode, Error> {
    let path = format!("/api/v1/apps/{}/exec", view::segment(&args.app));
    session(&path, args.program, args.instance, global).await
}

async fn session(
    path: &str,
    program: Program,
    instance: Option<String>,
    global: &Global,
) -> Result<ExitCode, Error> {
    let both = stdin().is_terminal() && stdout().is_terminal();
    if program.tty && !both {
        return Err(Error::usage("standard input and output are not a terminal")
            .hint("leave out `-t` to use a pipe"));
    }
    let terminal = both && !program.no_tty;
    let socket = Client::new(global)?.web_socket(path).await?;
    let (mut to, mut from) = socket.split();
    let start = json!({
        "command": program.command,
        "terminal": terminal,
        "size": size(),
        "instance": instance,
    });
    to.send(Message::text(start.to_string()))
        .await
        .map_err(|error| lost(&error))?;
    // Neither waits for the other: a program may write before it has read everything.
    let mut told = std::pin::pin!(follow(&mut from, terminal));
    let end = tokio::select! {
        end = &mut told => return end,
        end = pass_on(&mut to, terminal) => end,
    };
    match end {
        // The program may have ended, and said so.
        Err(error) => {
            let told = tokio::time::timeout(LAST, told).await;
            told.unwrap_or(Err(error))
        }
        gone => gone,
    }
}

fn lost(error: &(dyn std::error::Error + 'static)) -> Error {
    Error::unreachable("lost the connection to the agent; the program was ended").because(error)
}

/// Prints what the program writes until it ends.
async fn follow(
    from: &mut (impl Stream<Item = Result<Message, tungstenite::Error>> + Unpin),
    terminal: bool,
) -> Result<ExitCode, Error> {
    let mut raw = None;
    // The agent asks often whether anybody is there, once the program runs; making its container may take
    // longer.
    let mut silence = Duration::MAX;
    loop {
        let next = tokio::time::timeout(silence, from.next()).await;
        let Ok(message) = next else {
            return Err(Error::unreachable("the agent does not answer any more"));
        };
        let text = match message {
            Some(Ok(Message::Binary(bytes))) => {
                if !write(&bytes).await {
                    return Ok(ExitCode::from(UNREAD));
                }
                continue;
            }
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Close(_))) | None => {
                let error = "the agent closed the connection; the program was ended";
                return Err(Error::unreachable(error));
            }
            Some(Ok(_)) => continue,
            Some(Err(error)) => return Err(lost(&error)),
        };
        match serde_json::from_str(&text) {
            // Only now: an error before is for a terminal as it was.
            Ok(Said::Started {}) => {
                silence = SILENCE;
                raw = terminal.then(Raw::set).flatten();
            }
            Ok(Said::Exit { code, hint }) => {
                drop(raw);
                if let Some(hint) = hint {
                    eprintln!("Hint: {hint}");
                }
                return Ok(ExitCode::from(code.clamp(0, 255) as u8));
            }
            Ok(Said::Error { message }) => return Err(Error::failed(message)),
            Err(_) => {}
        }
    }
}

/// Passes on what is typed or piped, sizes and signals, until the connection or the terminal is gone.
async fn pass_on(
    to: &mut (impl Sink<Message, Error = tungstenite::Error> + Unpin),
    terminal: bool,
) -> Result<ExitCode, Error> {
    let mut input = tokio::io::stdin();
    let mut typed = vec![0; 16 << 10];
    let mut open = true;
    let handler = |kind| signal(kind).map_err(|error| Error::usage("no signals").because(&error));
    let mut resized = handler(SignalKind::window_change())?;
    let mut interrupted = handler(SignalKind::interrupt())?;
    let mut terminated = handler(SignalKind::terminate())?;
    loop {
        let message = tokio::select! {
            read = input.read(&mut typed), if open => match read {
                // A raw terminal has no end but its own.
                Ok(0) | Err(_) if terminal => return Ok(ExitCode::from(HUNG_UP)),
                Ok(0) | Err(_) => {
                    open = false;
                    Message::text("\"eof\"")
                }
                Ok(count) => Message::binary(typed[..count].to_vec()),
            },
            _ = resized.recv() => match size() {
                Some(size) if terminal => Message::text(json!({ "resize": size }).to_string()),
                _ => continue,
            },
            // In a raw terminal Ctrl-C is a byte like any other.
            _ = interrupted.recv() => Message::text(json!({ "signal": "INT" }).to_string()),
            _ = terminated.recv() => Message::text(json!({ "signal": "TERM" }).to_string()),
        };
        // Who reads nothing of what was sent before cannot be told of a signal either: without the
        // connection the program ends.
        tokio::select! {
            sent = to.send(message) => sent.map_err(|error| lost(&error))?,
            _ = interrupted.recv() => return Ok(ExitCode::from(INTERRUPTED)),
            _ = terminated.recv() => return Ok(ExitCode::from(TERMINATED)),
        }
    }
}

/// The first byte says to which stream the rest goes. Returns whether somebody reads the output.
async fn write(bytes: &[u8]) -> bool {
    let Some((stream, bytes)) = bytes.split_first() else {
        return true;
    };
    if *stream == 2 {
        let mut stderr = tokio::io::stderr();
        let _ = stderr.write_all(bytes).await;
        let _ = stderr.flush().await;
        return true;
    }
    let mut stdout = tokio::io::stdout();
    stdout.write_all(bytes).await.is_ok() && stdout.flush().await.is_ok()
}

/// Columns and rows.
fn size() -> Option<[u16; 2]> {
    let size = tcgetwinsize(stdout())
        .or_else(|_| tcgetwinsize(stderr()))
        .ok()?;
    Some([size.ws_col, size.ws_row])
}

/// A terminal that passes on what is typed as it is; as it was when this is dropped.
struct Raw(Termios);

impl Raw {
    fn set() -> Option<Self> {
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Flush, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}
