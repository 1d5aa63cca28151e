//! The engine that runs containers: instances, jobs and images. It knows nothing about
//! what is in an image.
//!
//! Every call can be repeated: names are derived from the deployment, so "already exists" means
//! "done before", and "not found" means "already gone". Addresses and networks are the engine's own
//! business: [`Engine::start`] answers with an [`Endpoint`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::config::{Command, Image};
use crate::ids::{AgentId, AppName, CommitId};
use crate::store::StoreError;
use crate::store::instances::Instance;
use crate::store::jobs::Job;
use crate::store::log::Log;
use crate::store::ours::Ours;
use crate::store::services::Service;
use crate::store::volumes::Volume;

pub mod advice;
mod docker;
pub mod files;
pub mod inventory;
pub mod output;
pub mod session;

use docker::Docker;
pub use docker::{Version, version};
use files::Files;
use inventory::{Details, FoundImage, Inventory};

/// The containers and networks that Cutover creates carry these labels, so that left-over ones can
/// be found. A label does not make anything ours: only our record does.
pub mod label {
    pub const AGENT: &str = "cutover.agent";
    pub const APP: &str = "cutover.app";
    pub const DEPLOYMENT: &str = "cutover.deployment";
    pub const RELEASE: &str = "cutover.release";
    /// The full id of the commit, so that a release can be recorded again if the database was lost.
    pub const COMMIT: &str = "cutover.commit";
    /// The agent's data folder: for people, and to identify the owner of left-overs when the folder
    /// is gone.
    pub const DATA_DIR: &str = "cutover.data-dir";
    /// Where a volume is mounted.
    pub const PATH: &str = "cutover.path";
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
    #[error("Docker failed to {what}: {cause}{}", advised(.cause))]
    Refused { what: String, cause: String },
    #[error("{0}")]
    Stopped(String),
    /// Our own record could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What to do about a refusal, as the end of its sentence.
fn advised(cause: &str) -> String {
    advice::of_start(cause).map_or_else(String::new, |advice| format!("; {advice}"))
}

pub type Result<T> = std::result::Result<T, EngineError>;

/// What a container gets besides its service's settings; looked up whenever one is made.
#[derive(Default)]
pub struct Environment {
    /// Some of the values are secret, so there is no `Debug`.
    pub variables: BTreeMap<String, String>,
    pub mounts: Vec<Mount>,
    /// The addresses of hosts, as in /etc/hosts.
    pub hosts: BTreeMap<String, IpAddr>,
}

/// The network that an app's containers are on, and nobody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppNetwork {
    pub name: String,
    pub subnet: Ipv4Net,
    /// This machine's own address there.
    pub gateway: Ipv4Addr,
}

/// Storage that a container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub source: MountSource,
    pub target: String,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// The engine's name for the volume.
    Volume(String),
    /// A path of this machine, without symbolic links.
    Host(PathBuf),
}

/// The address at which the proxy reaches an instance.
pub type Endpoint = SocketAddr;

/// What an instance is created from.
pub struct InstanceSpec<'a> {
    pub instance: &'a Instance,
    pub service: &'a Service,
    pub commit: &'a CommitId,
    /// The anonymous volumes that a container of this instance had before: a new one gets them back.
    pub volumes: &'a [Volume],
    /// Every endpoint in our record. No other instance may get one of them, even if no container has
    /// it at the moment: requests to it may be in flight.
    pub recorded: &'a [Endpoint],
    /// An error, for people, fails only the making of a container; one that exists has its own.
    pub environment: &'a std::result::Result<Environment, String>,
}

/// What a job is created from.
pub struct JobSpec<'a> {
    /// The job as recorded.
    pub job: &'a Job,
    /// The service whose image and settings the job runs with.
    pub service: &'a Service,
    pub environment: &'a Environment,
    pub command: &'a Command,
    /// How long the job may run.
    pub deadline: Duration,
    /// Whether it has a terminal, if it reads what a person types.
    pub terminal: Option<bool>,
}

/// What an image is built from, besides the files.
pub struct BuildSpec<'a> {
    /// The path of the Dockerfile within the files that contain it.
    pub dockerfile: &'a str,
    /// The name of the builder's copy of the files, by which the next build finds it.
    pub shared_key: &'a str,
    /// `name:tag` that the image gets.
    pub name: &'a str,
    pub args: &'a BTreeMap<String, String>,
    pub labels: &'a HashMap<String, String>,
    /// The stage that becomes the image; if absent, the last.
    pub target: Option<&'a str>,
    pub platform: Option<&'a str>,
    /// `host` or `none`.
    pub network: Option<&'a str>,
    pub extra_hosts: &'a BTreeMap<String, String>,
    /// In bytes.
    pub shm_size: Option<u64>,
    /// What `RUN --mount=type=secret` mounts, by id.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// The sockets of the SSH agents that `RUN --mount=type=ssh` reaches, by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// Runs every step, even one whose result is cached.
    pub no_cache: bool,
    /// Asks the registries for the base images, even if the engine has some of these names.
    pub pull: bool,
}

/// What the engine built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// `sha256:…`
    pub id: String,
    /// The images in registries that it builds on, `name:tag@sha256:…`.
    pub from: Vec<String>,
}

/// Why the engine did not build an image.
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
    /// The exit code, and whether the container was killed for exceeding its memory limit.
    Exited(i64, bool),
    Missing,
}

/// Where a container's processes accept connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listening {
    /// `None`: that cannot be seen from here.
    pub sockets: Option<Vec<SocketAddr>>,
    /// The TCP ports that its image declares.
    pub exposed: Vec<u16>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    pub code: i64,
    /// Its last lines, oldest first.
    pub tail: Vec<String>,
}

/// Everything that inspecting an instance reveals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    pub run: Run,
    /// The address that it has on the agent's network, while it runs.
    pub address: Option<IpAddr>,
    /// How often the engine has restarted it.
    pub restarts: i64,
    /// The exit code of its last run.
    pub exit_code: i64,
    pub out_of_memory: bool,
    /// Its anonymous volumes: the name and path of each.
    pub volumes: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Run {
    Running,
    Paused,
    /// It ended by itself, and the engine is about to restart it.
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

/// Which of a container's output to read.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Go on with what it writes from now on.
    pub follow: bool,
    /// In seconds since 1970.
    pub since: Option<i32>,
    /// The last so many lines.
    pub tail: Option<usize>,
}

/// A container engine, and this agent's part of it.
#[derive(Clone)]
pub enum Engine {
    Docker(Docker),
}

/// What a container uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// The time on processors since it was started.
    pub cpu: Duration,
    /// In bytes, without what the kernel only caches.
    pub memory: u64,
}

impl Engine {
    /// The Docker Engine at `host`. Sends no request yet.
    pub fn docker(host: String, agent: AgentId, data_dir: &Path) -> Self {
        Engine::Docker(Docker::new(host, agent, data_dir))
    }

    /// Where it is, as for `DOCKER_HOST`.
    pub fn host(&self) -> &str {
        match self {
            Engine::Docker(docker) => docker.host(),
        }
    }

    /// An error unless the engine answers within five seconds.
    pub async fn ping(&self) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.ping().await,
        }
    }

    /// Builds an image with the builder's output in the log. Dropping the
    /// future ends the build on the engine too.
    pub async fn build(
        &self,
        spec: &BuildSpec<'_>,
        dockerfile: Arc<Mutex<dyn Files>>,
        context: Arc<Mutex<dyn Files>>,
        log: &Log,
    ) -> std::result::Result<BuiltImage, BuildFailure> {
        match self {
            Engine::Docker(docker) => docker.build(spec, dockerfile, context, log).await,
        }
    }

    /// Removes from the builder's cache what was not used for `age`, and then what was used least recently
    /// until it has at most so many bytes; returns how many were removed. The cache of everybody on the
    /// engine is meant: it cannot tell whose is whose.
    pub async fn shrink_build_cache(
        &self,
        most: Option<u64>,
        age: Option<Duration>,
    ) -> Result<u64> {
        match self {
            Engine::Docker(docker) => docker.shrink_build_cache(most, age).await,
        }
    }

    /// The folder of the engine's images and containers, if it is on this machine. Asked once for each
    /// agent: an engine that has much to count takes seconds to answer.
    pub async fn root(&self) -> Result<Option<PathBuf>> {
        match self {
            Engine::Docker(docker) => docker.root().await,
        }
    }

    /// Gives an image its names, each `name:tag`, and makes sure that the last, which only this
    /// image has, points to it. Returns the paths of the volumes that the image declares; `None`: it no
    /// longer exists.
    pub async fn tag_image(&self, id: &str, names: &[String]) -> Result<Option<Vec<String>>> {
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

    /// Runs a job to its end with its output in the log, and returns how it ended. An error if the
    /// job is cancelled or exceeds its deadline. Its container is removed even then.
    pub async fn run(
        &self,
        job: &JobSpec<'_>,
        log: &Log,
        cancel: &CancellationToken,
    ) -> Result<Exit> {
        match self {
            Engine::Docker(docker) => docker.run(job, log, cancel).await,
        }
    }

    /// Makes a job's container, unless it exists.
    pub async fn make_job(&self, job: &JobSpec<'_>) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.make_job(job).await,
        }
    }

    /// Waits for the end of a job, with its output from the beginning in the log; starts it if it never
    /// was. `None` if its container does not exist. The container is left.
    pub async fn attend(&self, ours: &Ours, log: &Log) -> Result<Option<Exit>> {
        match self {
            Engine::Docker(docker) => docker.attend(ours, log).await,
        }
    }

    /// Runs a program in a running instance; `None` if it has not ended within `limit`.
    pub async fn execute(
        &self,
        ours: &Ours,
        argv: &[String],
        limit: Duration,
    ) -> Result<Option<Exit>> {
        match self {
            Engine::Docker(docker) => docker.execute(ours, argv, limit).await,
        }
    }

    pub async fn status(&self, ours: &Ours) -> Result<Status> {
        match self {
            Engine::Docker(docker) => docker.status(ours).await,
        }
    }

    /// Waits until an instance does not run, or does not exist any more.
    pub async fn ended(&self, ours: &Ours) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.ended(ours).await,
        }
    }

    /// The network of an app's containers, made if it is not there.
    pub async fn network_of(&self, app: &AppName) -> Result<AppNetwork> {
        match self {
            Engine::Docker(docker) => docker.network_of(app).await,
        }
    }

    /// Removes the networks that nothing is connected to and that no app of `apps` has; returns the names
    /// of those that are left.
    pub async fn sweep_networks(&self, apps: &HashSet<AppName>) -> Result<Vec<String>> {
        match self {
            Engine::Docker(docker) => docker.sweep_networks(apps).await,
        }
    }

    /// Where an instance listens.
    pub async fn listening(&self, ours: &Ours) -> Result<Listening> {
        match self {
            Engine::Docker(docker) => docker.listening(ours).await,
        }
    }

    /// Inspects an instance that should be running.
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

    /// Reconnects an instance to the agent's network; returns the same as [`Engine::start`]. An
    /// error if its container no longer exists.
    pub async fn rejoin(&self, spec: &InstanceSpec<'_>) -> Result<Option<Endpoint>> {
        match self {
            Engine::Docker(docker) => docker.rejoin(spec).await,
        }
    }

    /// Recreates the instance with the volumes that it had, and starts it; returns the same as
    /// [`Engine::start`].
    pub async fn remake(&self, spec: &InstanceSpec<'_>) -> Result<Option<Endpoint>> {
        match self {
            Engine::Docker(docker) => docker.remake(spec).await,
        }
    }

    /// Yields after each event that may concern one of the agent's instances; ends when the
    /// connection to the engine is lost.
    pub fn events(&self) -> Result<BoxStream<'static, ()>> {
        match self {
            Engine::Docker(docker) => docker.events(),
        }
    }

    /// How often the engine has restarted an instance; 0 if it does not exist.
    pub async fn restarts(&self, ours: &Ours) -> Result<i64> {
        match self {
            Engine::Docker(docker) => docker.restarts(ours).await,
        }
    }

    /// Sets whether the engine restarts an instance after an exit or a reboot; only live instances
    /// are restarted.
    pub async fn keep_running(&self, ours: &Ours, keep: bool) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.keep_running(ours, keep).await,
        }
    }

    /// Sends SIGTERM (or the image's own stop signal) to an instance, and SIGKILL after `grace`.
    pub async fn stop(&self, ours: &Ours, grace: Duration) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.stop(ours, grace).await,
        }
    }

    /// Removes a container with its anonymous volumes, killing it first if it is running.
    pub async fn remove(&self, ours: &Ours) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.remove(ours).await,
        }
    }

    /// Like [`Engine::remove`], but keeps the container's anonymous volumes.
    pub async fn remove_without_volumes(&self, ours: &Ours) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.remove_without_volumes(ours).await,
        }
    }

    /// The last lines of an instance's output, at most `lines`; of a very long line, its beginning.
    pub async fn log_tail(&self, ours: &Ours, lines: usize) -> Result<Vec<String>> {
        match self {
            Engine::Docker(docker) => docker.log_tail(ours, lines).await,
        }
    }

    /// What an instance writes, line by line; nothing if its container does not exist.
    pub async fn output(
        &self,
        ours: &Ours,
        wanted: Wanted,
    ) -> Result<BoxStream<'static, Result<output::Line>>> {
        match self {
            Engine::Docker(docker) => docker.output(ours, wanted).await,
        }
    }

    /// Every container of this agent, running or not.
    pub async fn list(&self) -> Result<Vec<Found>> {
        match self {
            Engine::Docker(docker) => docker.list().await,
        }
    }

    /// Removes a volume. An error if a container uses it.
    pub async fn remove_volume(&self, name: &str) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.remove_volume(name).await,
        }
    }

    /// Creates a volume of an app unless there is one of this name; one that another agent, with
    /// another data folder, has made is refused.
    pub async fn make_volume(&self, name: &str, app: &AppName) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.make_volume(name, app).await,
        }
    }

    /// The id of the image that has this name now; `None` if the engine has none.
    pub async fn image_id(&self, name: &str) -> Result<Option<String>> {
        match self {
            Engine::Docker(docker) => docker.image_id(name).await,
        }
    }

    /// Pushes an image under this name and tag, and returns the digest, `sha256:…`, that its registry has for
    /// it. The name is only the registry's: here it is taken away again.
    pub async fn push(&self, id: &str, image: &Image) -> Result<String> {
        match self {
            Engine::Docker(docker) => docker.push(id, image).await,
        }
    }

    /// The digest, `sha256:…`, of what a name stands for in its registry now.
    pub async fn digest(&self, image: &Image) -> Result<String> {
        match self {
            Engine::Docker(docker) => docker.digest(image).await,
        }
    }

    pub async fn has_image(&self, id: &str) -> Result<bool> {
        match self {
            Engine::Docker(docker) => docker.has_image(id).await,
        }
    }

    /// The engine's own id: another engine at the same address has another.
    pub async fn id(&self) -> Result<Option<String>> {
        match self {
            Engine::Docker(docker) => docker.engine_id().await,
        }
    }

    /// What a container uses; `None` if it does not run.
    pub async fn used(&self, name: &str) -> Result<Option<Used>> {
        match self {
            Engine::Docker(docker) => docker.used(name).await,
        }
    }

    /// The ids of all images.
    pub async fn image_ids(&self) -> Result<HashSet<String>> {
        match self {
            Engine::Docker(docker) => docker.image_ids().await,
        }
    }

    /// The images that carry this agent's labels, or those of another agent with the same data folder.
    pub async fn images(&self) -> Result<Vec<FoundImage>> {
        match self {
            Engine::Docker(docker) => docker.found_images().await,
        }
    }

    /// Everything that carries this agent's labels, or those of another agent with the same data folder,
    /// whoever made it.
    pub async fn inventory(&self) -> Result<Inventory> {
        match self {
            Engine::Docker(docker) => docker.inventory().await,
        }
    }

    /// What inspecting a container reveals; `None` if it does not exist.
    pub async fn details(&self, id: &str) -> Result<Option<Details>> {
        match self {
            Engine::Docker(docker) => docker.details(id).await,
        }
    }

    /// Removes a container that no record names, and keeps its anonymous volumes.
    pub async fn remove_unrecorded(&self, id: &str) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.remove_unrecorded(id).await,
        }
    }

    /// Removes a network. An error if a container is connected to it, running or not.
    pub async fn remove_network(&self, id: &str) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.remove_network(id).await,
        }
    }

    /// Removes a name of an image, unless it points to another one by now. An error if it is the last
    /// name and a container uses the image.
    pub async fn untag_image(&self, id: &str, name: &str) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.untag_image(id, name).await,
        }
    }

    /// Removes an image's Cutover tags; its layers go with the last tag. Tags that somebody else
    /// added stay. An error if a container still uses the image.
    pub async fn remove_image(&self, id: &str) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.remove_image(id).await,
        }
    }
}
