//! The proxy as a process: adopted where one is alive, started where none is, and started again
//! where it dies.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::Error;
use crate::deploy::{Agent, routes};
use crate::proxy::control::Client;

/// How long a started proxy may take to answer.
const START: Duration = Duration::from_secs(10);
/// How often it is looked at: an adopted proxy is nobody's child. Starts are as far apart.
const LOOK: Duration = Duration::from_secs(1);

pub struct DataPlane {
    client: Client,
    config: PathBuf,
    data_dir: PathBuf,
    /// A proxy that was started here has ended.
    ended: Arc<Notify>,
}

impl DataPlane {
    pub fn new(client: Client, config: PathBuf, data_dir: PathBuf) -> Self {
        Self {
            client,
            config,
            data_dir,
            ended: Arc::default(),
        }
    }

    /// Returns when a proxy answers.
    pub async fn ensure(&self) -> Result<(), Error> {
        if let Ok(hello) = self.client.hello().await {
            tracing::info!(
                pid = hello.pid,
                version = hello.version,
                "adopted the running proxy"
            );
            return Ok(());
        }
        let log = self.data_dir.join("proxy.log");
        let cannot = |e: std::io::Error| Error::usage("failed to start the proxy").because(&e);
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(cannot)?;
        // A process group of its own: neither Ctrl-C in the agent's terminal nor its end reaches it.
        // Of a binary that was replaced under the agent no path is left but this one.
        let own = std::env::current_exe().map_err(cannot)?;
        let own = Some(own).filter(|path| path.exists());
        let mut child = Command::new(own.unwrap_or_else(|| "/proc/self/exe".into()))
            .arg("proxy")
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(cannot)?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .map_err(cannot)?;
        let pid = child.id();
        // Waited for, so that it leaves no zombie.
        let notify = self.ended.clone();
        let ended = tokio::task::spawn_blocking(move || {
            let status = child.wait();
            notify.notify_one();
            status
        });
        let deadline = Instant::now() + START;
        while Instant::now() < deadline && !ended.is_finished() {
            if self.client.hello().await.is_ok() {
                tracing::info!(pid, "started the proxy");
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
        let last = std::fs::read_to_string(&log).unwrap_or_default();
        let last = last.lines().rev().take(5).collect::<Vec<_>>();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
        Err(Error::usage(format!(
            "the proxy did not start; the end of {}:\n{last}",
            log.display()
        )))
    }
}

/// Starts the proxy again whenever it is gone. It serves from its own table at once; publishing
/// brings it up to date.
pub async fn keep(data_plane: DataPlane, agent: Arc<Agent>) {
    let mut started = Instant::now();
    loop {
        tokio::select! {
            () = sleep(LOOK) => {}
            () = data_plane.ended.notified() => {}
        }
        if data_plane.client.hello().await.is_ok() {
            continue;
        }
        // One that dies at once, again and again, is not started without a pause.
        sleep_until(started + LOOK).await;
        started = Instant::now();
        tracing::error!("the proxy has exited; restarting it");
        if let Err(error) = data_plane.ensure().await {
            tracing::error!("{error:?}");
            continue;
        }
        if let Err(error) = routes::publish_anew(&agent).await {
            tracing::error!(%error, "failed to publish the routes");
        }
    }
}
