use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use thiserror::Error as ThisError;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{
    Answer, Command, Hello, Level, MAX_LINE, Receipt, RouteStats, Table, Taken, Tally, Wanted,
};

const CONNECT: Duration = Duration::from_secs(2);
/// How long to wait for a reply. A publish waits for the disk; nothing else takes long.
const ANSWER: Duration = Duration::from_secs(15);

/// The agent's end of the control socket. Each call opens its own connection, so that a waiting drain
/// delays no other call and a restarted proxy is found again.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why a command failed.
#[derive(Debug, ThisError)]
pub enum Error {
    #[error("failed to reach the proxy at `{socket}`: {source}; is `cutover proxy` running?")]
    Unreachable { socket: PathBuf, source: io::Error },
    #[error("the proxy closed the connection before it replied: {0}")]
    Broken(#[source] io::Error),
    #[error("the proxy did not reply within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("the proxy refused the command: {0}")]
    Refused(String),
    #[error("invalid reply from the proxy: {0}; are the agent and the proxy of the same version?")]
    Malformed(#[source] serde_json::Error),
}

impl Client {
    /// `socket` is `data_dir/proxy.sock`. Nothing is connected yet.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The running proxy's process and version.
    pub async fn hello(&self) -> Result<Hello, Error> {
        self.call(&Command::Hello, ANSWER).await
    }

    /// Returns the table's generation once the table is on disk and no request can be routed by an
    /// older one. A table that is older, or that differs from the present one of the same generation,
    /// is refused; publishing the same table again is fine.
    pub async fn publish(&self, table: &Table) -> Result<u64, Error> {
        self.call(&Command::Publish(table.clone()), ANSWER).await
    }

    /// Waits until every request that was claimed on `app`'s routes older than `before_generation` has
    /// finished, or was cut off and counted at its deadline. Safe to call again, even when nothing is
    /// left.
    pub async fn drain(
        &self,
        app: &str,
        before_generation: u64,
        requests: Duration,
        websockets: Duration,
    ) -> Result<Receipt, Error> {
        let command = Command::Drain {
            app: app.into(),
            before_generation,
            requests_ms: requests.as_millis() as u64,
            websockets_ms: websockets.as_millis() as u64,
        };
        self.call(&command, requests.max(websockets) + ANSWER).await
    }

    /// The table that requests are routed by now.
    pub async fn table(&self) -> Result<Table, Error> {
        self.call(&Command::Table, ANSWER).await
    }

    /// The counters of every share that serves or drains, and for a while of drained ones.
    pub async fn stats(&self) -> Result<Vec<RouteStats>, Error> {
        self.call(&Command::Stats, ANSWER).await
    }

    /// What became of the requests of an app's releases of late; the newest release comes first. An
    /// older proxy refuses the question.
    pub async fn tallies(&self, app: &str) -> Result<Vec<Tally>, Error> {
        self.call(&Command::Tallies { app: app.into() }, ANSWER)
            .await
    }

    /// Returns when every handshake uses the certificates as they are on disk now.
    pub async fn reload_certificates(&self) -> Result<(), Error> {
        self.call(&Command::Certificates, ANSWER).await
    }

    /// The names without a certificate that clients asked for since the last call. Waits for some for a
    /// while. An older proxy refuses the question.
    pub async fn unknown_names(&self) -> Result<Vec<String>, Error> {
        self.call(&Command::UnknownNames, ANSWER).await
    }

    /// The requests that were traced since the last call, as far as they were kept. An older proxy refuses
    /// the question.
    pub async fn spans(&self) -> Result<Taken, Error> {
        self.call(&Command::Spans, ANSWER).await
    }

    /// What the proxy logs, once it is as wanted. An older proxy refuses the question.
    pub async fn log_level(&self, wanted: Option<Wanted>) -> Result<Level, Error> {
        self.call(&Command::LogLevel { wanted }, ANSWER).await
    }

    /// Tells the proxy to finish the requests in progress and exit.
    pub async fn stop(&self) -> Result<(), Error> {
        self.call(&Command::Stop, ANSWER).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        command: &Command,
        limit: Duration,
    ) -> Result<T, Error> {
        let unreachable = |source| Error::Unreachable {
            socket: self.socket.clone(),
            source,
        };
        let mut stream = timeout(CONNECT, UnixStream::connect(&self.socket))
            .await
            .map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
            .map_err(unreachable)?;
        let answer = timeout(limit, exchange(&mut stream, command))
            .await
            .map_err(|_| Error::Timeout(limit))?
            .map_err(Error::Broken)?;
        match serde_json::from_slice(&answer).map_err(Error::Malformed)? {
            Answer::Done(value) => Ok(value),
            Answer::Refused(why) => Err(Error::Refused(why)),
        }
    }
}

async fn exchange(stream: &mut UnixStream, command: &Command) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Vec::new();
    let mut limited = BufReader::new(stream).take(MAX_LINE);
    limited.read_until(b'\n', &mut answer).await?;
    if answer.last() != Some(&b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}
