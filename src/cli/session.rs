//! `cutover run` and `cutover exec`: a program in an app's image, as if it ran here.

use std::io::{IsTerminal, stderr, stdin, stdout};
use std::process::ExitCode;

use clap::Args;
use futures_util::{SinkExt, StreamExt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::tungstenite::Message;

use super::client::{Client, view};
use super::{Error, Global};

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
    /// The container's name, or a process such as worker; the first of web if absent
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    #[command(flatten)]
    program: Program,
}

#[derive(Debug, Args)]
struct Program {
    /// Allocate a terminal; the default if this is one
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
    let mut socket = Client::new(global)?.web_socket(path).await?;
    let start = json!({
        "command": program.command,
        "terminal": terminal,
        "size": size(),
        "instance": instance,
    });
    let lost = |error: &(dyn std::error::Error + 'static)| {
        Error::unreachable("lost the connection to the agent; the program was ended").because(error)
    };
    let sent = socket.send(Message::text(start.to_string())).await;
    sent.map_err(|error| lost(&error))?;

    let mut raw = None;
    let mut input = tokio::io::stdin();
    let mut typed = vec![0; 16 << 10];
    let mut open = true;
    let mut unsent = None;
    let handler = |kind| signal(kind).map_err(|error| Error::usage("no signals").because(&error));
    let mut resized = handler(SignalKind::window_change())?;
    let mut interrupted = handler(SignalKind::interrupt())?;
    let mut terminated = handler(SignalKind::terminate())?;
    loop {
        let message = tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    write(&bytes).await;
                    continue;
                }
                Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                    Ok(Said::Started {}) => {
                        // Only now: an error before is for a terminal as it was.
                        raw = terminal.then(Raw::set).flatten();
                        continue;
                    }
                    Ok(Said::Exit { code, hint }) => {
                        drop(raw);
                        if let Some(hint) = hint {
                            eprintln!("Hint: {hint}");
                        }
                        return Ok(ExitCode::from(code.clamp(0, 255) as u8));
                    }
                    Ok(Said::Error { message }) => {
                        drop(raw);
                        return Err(Error::failed(message));
                    }
                    Err(_) => continue,
                },
                Some(Ok(Message::Close(_))) | None => {
                    drop(raw);
                    let closed = "the agent closed the connection; the program was ended";
                    return Err(unsent.unwrap_or_else(|| Error::unreachable(closed)));
                }
                Some(Ok(_)) => continue,
                Some(Err(error)) => {
                    drop(raw);
                    return Err(unsent.unwrap_or_else(|| lost(&error)));
                }
            },
            read = input.read(&mut typed), if open => match read {
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
        if let Err(error) = socket.send(message).await {
            // The program's end may be among what has come already.
            open = false;
            unsent = Some(lost(&error));
        }
    }
}

/// The first byte says to which stream the rest goes.
async fn write(bytes: &[u8]) {
    let Some((stream, bytes)) = bytes.split_first() else {
        return;
    };
    // Nobody may read it any more.
    let _ = match stream {
        2 => {
            let mut stderr = tokio::io::stderr();
            let _ = stderr.write_all(bytes).await;
            stderr.flush().await
        }
        _ => {
            let mut stdout = tokio::io::stdout();
            let _ = stdout.write_all(bytes).await;
            stdout.flush().await
        }
    };
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
