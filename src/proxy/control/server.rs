use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore};

use super::super::drain::drain;
use super::super::routes::Routes;
use super::{Answer, Command, Hello, MAX_LINE, SOCKET};

/// More connections wait.
const MAX_CONNECTIONS: usize = 64;
const WRITE: Duration = Duration::from_secs(10);

/// What the control socket speaks for.
pub struct Control {
    pub routes: Arc<Routes>,
    /// Told by [`Command::Stop`].
    pub stop: Notify,
}

/// Makes the socket, for its owner alone, in place of one that nobody answers at any more.
pub fn bind(folder: &Path) -> io::Result<UnixListener> {
    let path = folder.join(SOCKET);
    if std::os::unix::net::UnixStream::connect(&path).is_ok() {
        let why = format!(
            "another proxy answers at `{}`: stop it first",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    }
    // Under another name until its mode is set, so that nobody else can connect in between.
    let temp = folder.join("proxy.sock.new");
    let _ = std::fs::remove_file(&temp);
    let listener = UnixListener::bind(&temp)?;
    std::fs::set_permissions(&temp, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&temp, &path)?;
    Ok(listener)
}

/// Answers at the socket for as long as it is polled.
pub async fn serve(listener: UnixListener, control: Arc<Control>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let control = control.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &control).await {
                        tracing::debug!("a control connection broke: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("the control socket does not accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, control: &Control) -> io::Result<()> {
    // The socket's mode says the same; this holds even where the folder is shared.
    let (peer, own) = (stream.peer_cred()?.uid(), rustix::process::geteuid());
    if peer != own.as_raw() && peer != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut from)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .await?;
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
        let mut answer = match serde_json::from_slice(&line) {
            Ok(command) => carry_out(command, control).await,
            Err(error) => refused(&format!("this command is not understood: {error}")),
        };
        answer.push(b'\n');
        tokio::time::timeout(WRITE, to.write_all(&answer)).await??;
    }
}

async fn carry_out(command: Command, control: &Control) -> Vec<u8> {
    let routes = &control.routes;
    match command {
        Command::Hello => done(Hello {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            generation: routes.generation(),
        }),
        Command::Publish(table) => match routes.publish(table).await {
            Ok(generation) => done(generation),
            Err(error) => refused(&error.to_string()),
        },
        Command::Drain {
            app,
            before_generation,
            requests_ms,
            websockets_ms,
        } => {
            let requests = Duration::from_millis(requests_ms);
            let websockets = Duration::from_millis(websockets_ms);
            match drain(routes, &app, before_generation, requests, websockets).await {
                Ok(receipt) => done(receipt),
                Err(error) => refused(&error.to_string()),
            }
        }
        Command::Stats => done(routes.stats()),
        Command::Stop => {
            control.stop.notify_one();
            done(())
        }
    }
}

fn done(value: impl Serialize) -> Vec<u8> {
    serde_json::to_vec(&Answer::Done(value))
        .unwrap_or_else(|error| refused(&format!("the answer cannot be written: {error}")))
}

fn refused(why: &str) -> Vec<u8> {
    serde_json::to_vec(&Answer::<()>::Refused(why.into())).expect("a string becomes JSON")
}
