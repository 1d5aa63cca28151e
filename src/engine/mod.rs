//! The engine that runs containers: instances, jobs and images. What is in an image is not its
//! business.
//!
//! Every call can be repeated: names are derived from the deployment, so "already exists" means
//! "done before", and "not found" means "already gone". Addresses and networks are the engine's own
//! business: [`Engine::start`] answers with an [`Endpoint`].

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use crate::ids::{AgentId, AppName};
use crate::store::StoreError;
use crate::store::instances::Instance;
use crate::store::jobs::Job;
use crate::store::log::Log;
use crate::store::ours::Ours;
use crate::store::services::Service;

mod docker;

use docker::Docker;
pub use docker::{Version, version};

/// The containers and networks that Cutover creates carry these, so that left-over ones can be found.
/// They do not make anything ours: only our record does.
pub mod label {
    pub const AGENT: &str = "cutover.agent";
    pub const APP: &str = "cutover.app";
    pub const DEPLOYMENT: &str = "cutover.deployment";
    pub const RELEASE: &str = "cutover.release";
    /// The agent's data folder: for people, and to identify the owner of left-overs when the folder
    /// is gone.
    pub const DATA_DIR: &str = "cutover.data-dir";
    /// A value that no other container has; see [`crate::store::ours`].
    pub const MARK: &str = "cutover.mark";

    /// The labels of images. They have different names, because a container inherits its image's labels.
    pub mod image {
        pub const AGENT: &str = "cutover.image.agent";
        pub const APP: &str = "cutover.image.app";
        pub const DATA_DIR: &str = "cutover.image.data-dir";
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nothing was done; it can be retried when the engine is reachable again.
    #[error("Docker is not reachable at `{host}`: {cause}")]
    Unreachable { host: String, cause: String },
    #[error("Docker failed to {what}: {cause}")]
    Refused { what: String, cause: String },
    #[error("{0}")]
    Stopped(String),
    /// Our own record could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub type Result<T> = std::result::Result<T, EngineError>;

/// Where an instance is reached, as the proxy dials it.
pub type Endpoint = SocketAddr;

/// What an instance is created from.
pub struct InstanceSpec<'a> {
    pub instance: &'a Instance,
    pub service: &'a Service,
    /// Every endpoint in our record. No other instance may get one of them, even if no container has
    /// it at the moment: requests to it may be in flight.
    pub recorded: &'a [Endpoint],
}

/// What a job is created from.
pub struct JobSpec<'a> {
    /// The job as recorded.
    pub job: &'a Job,
    /// The service whose image and settings the job runs with.
    pub service: &'a Service,
    /// Passed to `/bin/sh -c` in the image, as a Dockerfile's RUN would.
    pub command: &'a str,
    pub deadline: Duration,
}

/// What an image is built from, beside the context that is sent.
pub struct BuildSpec<'a> {
    /// Its path within the context.
    pub dockerfile: &'a str,
    /// `name:tag` that the image gets.
    pub name: &'a str,
    pub args: &'a BTreeMap<String, String>,
    pub labels: &'a HashMap<String, String>,
    /// Runs every step, even what an earlier image holds already.
    pub no_cache: bool,
    /// When the caller gives the build up.
    pub timeout: Duration,
}

/// Why the engine made no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildFailure {
    #[error("the build failed at `{step}`: {message}")]
    Step {
        /// The Dockerfile's line, as the builder names it.
        step: String,
        message: String,
        /// The failing step's last lines, oldest first.
        log_tail: Vec<String>,
    },
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The state of a container as the engine reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    Running,
    /// With its exit code, and whether it was killed for exceeding its memory limit.
    Exited(i64, bool),
    Missing,
}

/// All that a look at an instance tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    pub run: Run,
    /// The address that it has on the agent's network, while it runs.
    pub address: Option<IpAddr>,
    /// How often the engine has restarted it.
    pub restarts: i64,
    /// The last one's.
    pub exit_code: i64,
    pub out_of_memory: bool,
    /// Its anonymous volumes: name and path of each.
    pub volumes: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Run {
    Running,
    Paused,
    /// It ended by itself, and the engine starts it again in a moment.
    Restarting,
    Exited,
    #[default]
    Missing,
}

/// A container that carries this agent's label. That does not make it ours: a container inherits the
/// labels of its image.
#[derive(Debug, Clone)]
pub struct Found {
    pub name: String,
    pub mark: Option<String>,
}

/// One engine, and this agent's part of it.
#[derive(Clone)]
pub enum Engine {
    Docker(Docker),
}

impl Engine {
    /// The Docker Engine at `host`. Sends no request yet.
    pub fn docker(host: String, agent: AgentId, data_dir: &Path) -> Self {
        Engine::Docker(Docker::new(host, agent, data_dir))
    }

    /// An error unless the engine answers within five seconds.
    pub async fn ping(&self) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.ping().await,
        }
    }

    /// Builds an image from the context with the builder's output in the log, and returns its id,
    /// `sha256:…`. Dropping the future ends the build on the engine too.
    pub async fn build(
        &self,
        spec: &BuildSpec<'_>,
        context: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        log: &Log,
    ) -> std::result::Result<String, BuildFailure> {
        match self {
            Engine::Docker(docker) => docker.build(spec, context, log).await,
        }
    }

    /// Gives an image its names, each `name:tag`, and makes sure that the last, which is nobody
    /// else's, leads to it. `false`: the image is gone.
    pub async fn tag_image(&self, id: &str, names: &[String]) -> Result<bool> {
        match self {
            Engine::Docker(docker) => docker.tag_image(id, names).await,
        }
    }

    /// The labels that every image of an app carries.
    pub fn image_labels(&self, app: &AppName) -> HashMap<String, String> {
        match self {
            Engine::Docker(docker) => docker.image_labels(app),
        }
    }

    /// Creates the instance if it does not exist, and starts it if it is not running. Returns its
    /// endpoint, the same as before if possible; `None` if its service has no port.
    pub async fn start(&self, spec: &InstanceSpec<'_>) -> Result<Option<Endpoint>> {
        match self {
            Engine::Docker(docker) => docker.start(spec).await,
        }
    }

    /// Runs a job to its end with its output in the log, and returns its exit code. Its container is
    /// removed afterwards, even if the job was cancelled.
    pub async fn run(
        &self,
        job: &JobSpec<'_>,
        log: &Log,
        cancel: &CancellationToken,
    ) -> Result<i64> {
        match self {
            Engine::Docker(docker) => docker.run(job, log, cancel).await,
        }
    }

    pub async fn status(&self, ours: &Ours) -> Result<Status> {
        match self {
            Engine::Docker(docker) => docker.status(ours).await,
        }
    }

    /// All that there is to know of an instance that should run.
    pub async fn look(&self, ours: &Ours) -> Result<Look> {
        match self {
            Engine::Docker(docker) => docker.look(ours).await,
        }
    }

    pub async fn unpause(&self, ours: &Ours) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.unpause(ours).await,
        }
    }

    /// Connects an instance to the agent's network again; returns as [`Engine::start`] does.
    pub async fn rejoin(&self, spec: &InstanceSpec<'_>) -> Result<Option<Endpoint>> {
        match self {
            Engine::Docker(docker) => docker.rejoin(spec).await,
        }
    }

    /// Makes the instance anew, with the volumes that it had, and starts it.
    pub async fn remake(&self, spec: &InstanceSpec<'_>) -> Result<Option<Endpoint>> {
        match self {
            Engine::Docker(docker) => docker.remake(spec).await,
        }
    }

    /// Yields after each event that may concern an instance of the agent; ends when the engine goes.
    pub fn events(&self) -> Result<BoxStream<'static, ()>> {
        match self {
            Engine::Docker(docker) => docker.events(),
        }
    }

    /// How often the engine has restarted it.
    pub async fn restarts(&self, ours: &Ours) -> Result<i64> {
        match self {
            Engine::Docker(docker) => docker.restarts(ours).await,
        }
    }

    /// Sets whether the engine restarts it after an exit or a reboot; only what is live is restarted.
    pub async fn keep_running(&self, ours: &Ours, keep: bool) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.keep_running(ours, keep).await,
        }
    }

    /// Sends SIGTERM (or the image's own stop signal), and SIGKILL after `grace`.
    pub async fn stop(&self, ours: &Ours, grace: Duration) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.stop(ours, grace).await,
        }
    }

    /// Kills it if it is running, and removes it with its anonymous volumes.
    pub async fn remove(&self, ours: &Ours) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.remove(ours).await,
        }
    }

    /// As [`Engine::remove`], but its anonymous volumes stay.
    pub async fn remove_without_volumes(&self, ours: &Ours) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.remove_without_volumes(ours).await,
        }
    }

    /// The last lines of its output.
    pub async fn log_tail(&self, ours: &Ours, lines: usize) -> Result<Vec<String>> {
        match self {
            Engine::Docker(docker) => docker.log_tail(ours, lines).await,
        }
    }

    /// Every container of this agent, running or not.
    pub async fn list(&self) -> Result<Vec<Found>> {
        match self {
            Engine::Docker(docker) => docker.list().await,
        }
    }

    /// Removes a volume. One that a container uses stays, and that is an error.
    pub async fn remove_volume(&self, name: &str) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.remove_volume(name).await,
        }
    }

    /// The paths that the image declares as volumes.
    pub async fn volumes_of_image(&self, id: &str) -> Result<Vec<String>> {
        match self {
            Engine::Docker(docker) => docker.volumes_of_image(id).await,
        }
    }

    pub async fn has_image(&self, id: &str) -> Result<bool> {
        match self {
            Engine::Docker(docker) => docker.has_image(id).await,
        }
    }

    /// Removes an image's Cutover tags; its layers go with the last tag. Tags that somebody else added
    /// stay. It is an error if a container still uses the image.
    pub async fn remove_image(&self, id: &str) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.remove_image(id).await,
        }
    }
}
