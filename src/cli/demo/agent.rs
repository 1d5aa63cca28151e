//! A separate `cutover serve`: the real program with its own folder.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::http;
use crate::cli::Error;

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(60);

/// A running agent, and the proxy that it started.
pub struct Agent {
    pub(crate) child: Child,
    log: PathBuf,
    /// The address of webhooks and the API.
    pub address: SocketAddr,
    /// The address at which the apps are served.
    pub proxy: SocketAddr,
}

/// What to start, and where.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// The `cutover` program.
    pub program: &'a Path,
    /// Its deploy.toml.
    pub config: &'a Path,
    /// The `data_dir` in that file.
    pub data_dir: &'a Path,
    /// The file that its log is appended to.
    pub log: &'a Path,
    /// Additional environment variables.
    pub env: &'a [(&'a str, &'a str)],
}

impl Agent {
    /// Starts the agent and waits until it and the proxy answer.
    pub async fn start(start: Start<'_>) -> Result<Self, Error> {
        let address = start.data_dir.join("agent.addr");
        // A file left by an agent that was killed does not have this agent's address.
        let _ = std::fs::remove_file(&address);
        let child = spawn(&start).map_err(|error| {
            Error::usage(format!("failed to run `{}`", start.program.display())).because(&error)
        })?;
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut agent = Self {
            child,
            log: start.log.to_owned(),
            address: unknown,
            proxy: unknown,
        };
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = agent.child.try_wait() {
                return Err(agent.said(&format!("the agent exited ({status})")));
            }
            let proxy = read_address(&start.data_dir.join("proxy.addr"));
            if let (Some(address), Some(proxy)) = (read_address(&address), proxy) {
                (agent.address, agent.proxy) = (address, proxy);
                let alive = http::get(address, "localhost", "/healthz").await;
                if alive.is_ok_and(|answer| answer.status.is_success()) {
                    return Ok(agent);
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
        Err(agent.said(&format!(
            "the agent did not answer within {} s",
            START.as_secs()
        )))
    }

    /// Sends SIGTERM, and waits until the agent has exited.
    pub async fn stop(&mut self) -> Result<ExitStatus, Error> {
        self.signal(Signal::TERM);
        match timeout(STOP, self.child.wait()).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => Err(Error::failed("failed to wait for the agent").because(&error)),
            Err(_) => {
                self.signal(Signal::KILL);
                Err(self.said(&format!(
                    "the agent did not stop within {} s",
                    STOP.as_secs()
                )))
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id as i32));
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }

    fn said(&self, what: &str) -> Error {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n  ");
        Error::failed(format!("{what}; its last lines:\n  {last}"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // A requested stop has already been waited for; this is for a test that panicked.
        self.signal(Signal::TERM);
    }
}

fn spawn(start: &Start<'_>) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(start.log)?;
    Command::new(start.program)
        .arg("--config")
        .arg(start.config)
        .arg("serve")
        .env_remove("CUTOVER_TOKEN")
        .env_remove("CUTOVER_URL")
        .env_remove("CUTOVER_CONFIG")
        .envs(start.env.iter().copied())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C is meant for the process that started it, which then stops it in an orderly way.
        .process_group(0)
        .spawn()
}

/// Reads `{"http": "127.0.0.1:PORT"}`.
fn read_address(path: &Path) -> Option<SocketAddr> {
    let text = std::fs::read(path).ok()?;
    let value: Value = serde_json::from_slice(&text).ok()?;
    value["http"].as_str()?.parse().ok()
}
