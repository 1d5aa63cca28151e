//! The engine that runs containers: instances, jobs and images. It knows nothing about
//! what is in an image.
//!
//! Every call can be repeated: names are derived from the deployment, so "already exists" means
//! "done before", and "not found" means "already gone". Addresses and networks are the engine's own
//! business: [`Engine::start`] answers with an [`Endpoint`].

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::config::Image;
use crate::ids::{AgentId, AppName};
use crate::store::StoreError;
use crate::store::log::Log;
use crate::store::ours::Ours;

pub mod advice;
mod container;
mod docker;
pub mod files;
mod image;
pub mod inventory;
pub mod label;
pub mod output;
pub mod session;
mod spec;

pub use container::{Ended, Exit, Found, Listening, Look, NeedLook, Run, Status, Used};
use docker::Docker;
pub use docker::{Version, version};
use files::Files;
pub use image::{BuildFailure, BuildLimits, BuildSpec, BuiltImage};
use inventory::{Details, FoundImage, Inventory};
use output::Wanted;
pub use spec::{
    AppNetwork, Endpoint, Environment, InstanceSpec, JobSpec, Mount, MountSource, NeedSpec,
};

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

/// A container engine, and this agent's part of it.
#[derive(Clone)]
pub enum Engine {
    Docker(Docker),
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
        log: Option<&Log>,
    ) -> std::result::Result<BuiltImage, BuildFailure> {
        match self {
            Engine::Docker(docker) => docker.build(spec, dockerfile, context, log).await,
        }
    }

    /// What it builds for by itself, such as `linux/amd64`; `None` if its machine does not say enough.
    pub async fn platform(&self) -> Result<Option<String>> {
        match self {
            Engine::Docker(docker) => docker.platform().await,
        }
    }

    /// Limits what the steps of builds take, everybody's on the engine; an error says why that does not hold.
    pub async fn limit_builds(&self, limits: BuildLimits) -> std::result::Result<(), String> {
        match self {
            Engine::Docker(docker) => docker.limit_builds(limits).await,
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

    /// Removes from the builder's cache what was put there since then, unless it is in use now; returns how
    /// many bytes.
    pub async fn forget_build_cache(&self, since: OffsetDateTime) -> Result<u64> {
        match self {
            Engine::Docker(docker) => docker.forget_build_cache(since).await,
        }
    }

    /// Has it describe itself anew when that is needed next: it may have been started with other settings.
    pub fn started_again(&self) {
        match self {
            Engine::Docker(docker) => docker.started_again(),
        }
    }

    /// Whether it keeps with an image what says how it was built and what it contains.
    pub async fn keeps_attestations(&self) -> Result<bool> {
        match self {
            Engine::Docker(docker) => docker.keeps_attestations().await,
        }
    }

    /// The folders of the engine's images and containers, if it is on this machine: one, or two that may be on two
    /// disks. Asked once for each agent: an engine that has much to count takes seconds to answer.
    pub async fn folders(&self) -> Result<Vec<PathBuf>> {
        match self {
            Engine::Docker(docker) => docker.folders().await,
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

    /// Runs a job to its end with its output in the log, and returns how it ended and what it left. An error if the
    /// job is cancelled or exceeds its deadline. Its container is removed even then.
    pub async fn run(
        &self,
        job: &JobSpec<'_>,
        log: &Log,
        cancel: &CancellationToken,
    ) -> Result<Ended> {
        match self {
            Engine::Docker(docker) => docker.run(job, log, cancel).await,
        }
    }

    /// Makes and starts what a test needs, on the network of its app's test. One that exists is replaced.
    pub async fn start_need(&self, need: &NeedSpec<'_>) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.start_need(need).await,
        }
    }

    pub async fn look_at_need(&self, need: &Ours) -> Result<NeedLook> {
        match self {
            Engine::Docker(docker) => docker.look_at_need(need).await,
        }
    }

    /// Removes the network of an app's test, if it exists. An error if a container is on it.
    pub async fn remove_test_network(&self, app: &AppName) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.remove_test_network(app).await,
        }
    }

    /// Gets an image from its registry, and returns its id.
    pub async fn pull(&self, image: &Image, platform: Option<&str>) -> Result<String> {
        match self {
            Engine::Docker(docker) => docker.pull(image, platform).await,
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

    /// The digest, `sha256:…`, that the engine has got the image with this id by, under this name.
    pub async fn known_digest(&self, id: &str, image: &Image) -> Result<Option<String>> {
        match self {
            Engine::Docker(docker) => docker.known_digest(id, image).await,
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

    /// Removes an image, unless it has a name.
    pub async fn remove_unnamed_image(&self, id: &str) -> Result<()> {
        match self {
            Engine::Docker(docker) => docker.remove_unnamed_image(id).await,
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
