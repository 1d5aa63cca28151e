//! The proxy's process: adopted if one is alive, started if not, and started again when it dies.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::Error;
use super::super::proxy::BY_AGENT;
use crate::deploy::{Agent, routes};
use crate::proxy::control::{Client, Hello};
use crate::proxy::{LOG, Options, Settings};

/// How long a proxy may take to answer after its start.
const START: Duration = Duration::from_secs(10);
/// How often to check the proxy, since an adopted one is not a child process. Also the least time
/// between two starts.
const LOOK: Duration = Duration::from_secs(1);

pub struct DataPlane {
    pub client: Client,
    config: PathBuf,
    data_dir: PathBuf,
    settings: Settings,
    /// Notified when a proxy that was started here has ended.
    ended: Arc<Notify>,
}

/// How the proxy that now answers was obtained.
#[derive(Debug, PartialEq, Eq)]
pub enum Ensured {
    Started,
    Adopted,
}

impl DataPlane {
    pub fn new(client: Client, config: PathBuf, options: &Options) -> Self {
        Self {
            client,
            config,
            data_dir: options.data_dir.clone(),
            settings: options.settings(),
            ended: Arc::default(),
        }
    }

    /// Returns when a proxy answers. It runs with the settings in deploy.toml if that is possible
    /// without dropping anything.
    pub async fn ensure(&self) -> Result<Ensured, Error> {
        let Ok(hello) = self.client.hello().await else {
            self.start(false).await?;
            return Ok(Ensured::Started);
        };
        let (pid, version) = (hello.pid, &hello.version);
        tracing::info!(pid, version, "adopted the running proxy");
        let Some(differs) = self.differs(&hello) else {
            return Ok(Ensured::Adopted);
        };
        if !hello.by_agent {
            tracing::warn!(
                pid,
                "the running proxy differs in {differs}, and keeps serving as it is: restart it, or run \
                 `cutover proxy --takeover`"
            );
            return Ok(Ensured::Adopted);
        }
        match self.start(true).await {
            Ok(()) => tracing::info!(
                pid,
                "replaced the adopted proxy, which differed in {differs}"
            ),
            Err(error) => tracing::error!(
                pid,
                "the running proxy differs in {differs}, and keeps serving as it is: {error:?}"
            ),
        }
        Ok(Ensured::Adopted)
    }

    /// How a proxy that is started now would differ.
    fn differs(&self, hello: &Hello) -> Option<String> {
        let mut differs = Vec::new();
        if hello.version != env!("CARGO_PKG_VERSION") {
            differs.push("its version".to_owned());
        }
        let settings = hello.settings.as_ref();
        let keys = settings.map(|settings| settings.differences(&self.settings));
        let keys = keys.unwrap_or_default().into_iter();
        differs.extend(keys.map(|key| format!("`proxy.{key}`")));
        (!differs.is_empty()).then(|| differs.join(", "))
    }

    /// Starts a proxy and waits until it answers; with `takeover`, it replaces the running one.
    async fn start(&self, takeover: bool) -> Result<(), Error> {
        let log = self.data_dir.join(LOG);
        let cannot = |e: std::io::Error| Error::usage("failed to start the proxy").because(&e);
        // Serving does not depend on whether files can be written.
        let output = File::options().create(true).append(true).open(&log);
        let output = output.or_else(|_| File::options().write(true).open("/dev/null"));
        let output = output.map_err(cannot)?;
        // If the binary was replaced while the agent was running, `/proc/self/exe` is the only path
        // left to it. The proxy gets a process group of its own, so that neither Ctrl-C in the agent's
        // terminal nor the agent's end reaches it.
        let own = std::env::current_exe().map_err(cannot)?;
        let own = Some(own).filter(|path| path.exists());
        let mut child = Command::new(own.unwrap_or_else(|| "/proc/self/exe".into()))
            .arg("proxy")
            .arg("--config")
            .arg(&self.config)
            .args(takeover.then_some("--takeover"))
            .env(BY_AGENT, "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(cannot)?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .map_err(cannot)?;
        let pid = child.id();
        // Waited for, so that it does not become a zombie.
        let notify = self.ended.clone();
        let ended = tokio::task::spawn_blocking(move || {
            let status = child.wait();
            notify.notify_one();
            status
        });
        let deadline = Instant::now() + START;
        while Instant::now() < deadline && !ended.is_finished() {
            let hello = self.client.hello().await;
            if hello.is_ok_and(|hello| hello.pid == pid || !takeover) {
                tracing::info!(pid, "started the proxy");
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
        // One that cannot create its control socket serves all the same, and one that is only slow will:
        // a second one would not get its listeners. A successor that is not ready leaves the old one.
        if takeover
            && !ended.is_finished()
            && let Some(pid) = Pid::from_raw(pid as i32)
        {
            let _ = kill_process(pid, Signal::KILL);
        }
        Err(Error::usage(format!(
            "the proxy did not start; the end of {}:\n{}",
            log.display(),
            end_of(&log)
        )))
    }
}

fn end_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

/// Starts the proxy again whenever it has ended. It serves from its own table at once; a publish brings
/// it up to date.
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
        // A proxy that keeps dying immediately is restarted only after a pause.
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
