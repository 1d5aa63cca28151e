//! The Docker Engine, through its API.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use bollard::models::EndpointSettings;

use super::{EngineError, Result, label};
use crate::ids::{AgentId, AppName};
use network::Network;

mod build_limits;
mod build_rank;
mod builder;
mod execute;
mod facts;
mod folders;
mod host_routes;
mod images;
mod instance;
mod inventory;
mod job;
mod lines;
mod listening;
mod need;
mod network;
mod output;
mod registry;
mod session;
mod tend;
mod usage;
mod volume;

/// How long an engine may take to answer before it counts as unreachable.
const ANSWER: Duration = Duration::from_secs(5);

/// One Docker Engine, and this agent's part of it.
#[derive(Clone)]
pub struct Docker {
    host: String,
    agent: AgentId,
    data_dir: String,
    /// Held while the network is looked up or created: Docker would create two of the same name.
    network: Arc<tokio::sync::Mutex<()>>,
    /// Held from the choice of an address until a container has it.
    addresses: Arc<tokio::sync::Mutex<()>>,
    /// What it has said of itself.
    facts: Arc<tokio::sync::Mutex<Option<facts::Said>>>,
    /// How many of its starts have been seen.
    starts: Arc<AtomicU64>,
    /// The limits of builds that were written last.
    build_limits: Arc<tokio::sync::Mutex<Option<build_limits::Written>>>,
    /// How many builds run.
    builds: Arc<AtomicUsize>,
}

impl Docker {
    pub fn new(host: String, agent: AgentId, data_dir: &std::path::Path) -> Self {
        Self {
            host,
            agent,
            data_dir: data_dir.display().to_string(),
            network: Arc::default(),
            addresses: Arc::default(),
            facts: Arc::default(),
            starts: Arc::default(),
            build_limits: Arc::default(),
            builds: Arc::default(),
        }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// A client for the engine. Sends no request yet, but the socket must exist.
    fn client(&self) -> Result<bollard::Docker> {
        bollard::Docker::connect_with_host(&self.host).map_err(|e| self.unreachable(&e))
    }

    pub async fn ping(&self) -> Result<()> {
        let docker = self.client()?.with_timeout(ANSWER);
        docker
            .ping()
            .await
            .map(drop)
            .map_err(|e| self.unreachable(&e))
    }

    pub async fn engine_id(&self) -> Result<Option<String>> {
        let info = self.client()?.with_timeout(ANSWER).info().await;
        Ok(info.map_err(self.failed("say its id"))?.id)
    }

    pub async fn folders(&self) -> Result<Vec<PathBuf>> {
        match self.host.starts_with("unix://") {
            true => Ok(self.facts().await?.folders.clone()),
            false => Ok(Vec::new()),
        }
    }

    pub async fn keeps_attestations(&self) -> Result<bool> {
        Ok(self.facts().await?.attests)
    }

    pub async fn platform(&self) -> Result<Option<String>> {
        Ok(self.facts().await?.platform.clone())
    }

    pub fn image_labels(&self, app: &AppName) -> HashMap<String, String> {
        let label = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let labels = [
            (label::image::AGENT, self.agent.as_str()),
            (label::image::APP, app.as_str()),
            (label::image::DATA_DIR, &self.data_dir),
        ];
        labels.map(label).into()
    }

    /// The labels of every container and network that this agent creates.
    fn labels(&self) -> HashMap<String, String> {
        HashMap::from([
            (label::AGENT.to_owned(), self.agent.to_string()),
            (label::DATA_DIR.to_owned(), self.data_dir.clone()),
        ])
    }

    /// The network of an app's containers. Docker lets no packet pass from one network to another.
    fn network_name(&self, app: &AppName) -> String {
        format!("cutover-{}-{app}", self.agent)
    }

    /// The network of an app's test and what that needs. No app's name has a dot.
    fn test_network_name(&self, app: &AppName) -> String {
        format!("{}.test", self.network_name(app))
    }

    /// Whether a network is one of this agent's: an app's, or the one that all had in earlier versions.
    fn is_own_network(&self, name: &str) -> bool {
        let rest = name.strip_prefix("cutover-");
        let rest = rest.and_then(|rest| rest.strip_prefix(self.agent.as_str()));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// What a container has on this agent's networks: first on its app's own.
    fn own_endpoint(
        &self,
        networks: HashMap<String, EndpointSettings>,
    ) -> Option<EndpointSettings> {
        let own = networks.into_iter();
        let own = own.filter(|(name, _)| self.is_own_network(name));
        own.max_by_key(|(name, _)| name.len()).map(|(_, it)| it)
    }

    fn ours(&self) -> HashMap<String, Vec<String>> {
        HashMap::from([(
            "label".to_owned(),
            vec![format!("{}={}", label::AGENT, self.agent)],
        )])
    }

    fn unreachable(&self, cause: &(dyn std::error::Error + 'static)) -> EngineError {
        EngineError::Unreachable {
            host: self.host.clone(),
            cause: why_unreachable(cause),
        }
    }

    /// Distinguishes an unreachable engine from one that refused.
    fn failed(
        &self,
        what: impl Into<String>,
    ) -> impl FnOnce(bollard::errors::Error) -> EngineError {
        let what = what.into();
        move |error| match error {
            bollard::errors::Error::DockerResponseServerError { message, .. } => {
                EngineError::Refused {
                    what,
                    cause: message,
                }
            }
            error if is_unreachable(&error) => self.unreachable(&error),
            error => EngineError::Refused {
                what,
                cause: root_cause(&error),
            },
        }
    }
}

/// What an engine reports about itself.
pub struct Version {
    pub engine: String,
    /// The version of its API.
    pub api: String,
}

/// Asks the engine at `host` for its version, within five seconds.
pub async fn version(host: &str) -> Result<Version> {
    let unreachable = |cause: &(dyn std::error::Error + 'static)| EngineError::Unreachable {
        host: host.to_owned(),
        cause: why_unreachable(cause),
    };
    let docker = bollard::Docker::connect_with_host(host).map_err(|error| unreachable(&error))?;
    let asked = tokio::time::timeout(ANSWER, docker.version()).await;
    let version = asked.map_err(|error| unreachable(&error))?;
    let version = version.map_err(|error| unreachable(&error))?;
    Ok(Version {
        engine: version.version.unwrap_or_default(),
        api: version.api_version.unwrap_or_default(),
    })
}

/// Whether the engine did not answer at all. A malformed answer counts as an answer: it will not be
/// different the next time.
fn is_unreachable(error: &bollard::errors::Error) -> bool {
    use bollard::errors::Error;
    matches!(
        error,
        Error::HyperResponseError { .. }
            | Error::HyperLegacyError { .. }
            | Error::IOError { .. }
            | Error::RequestTimeoutError
            | Error::SocketNotFoundError(_)
    )
}

/// The root cause, and what to do if only the permission is missing.
fn why_unreachable(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::PermissionDenied) {
            return "permission denied; add the user that runs Cutover to the group `docker` \
                    (`usermod -aG docker USER`) and start Cutover in a new session"
                .to_owned();
        }
        cause = error.source();
    }
    root_cause(error)
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn status_code(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Treats "not found" as "already gone".
fn gone_is_done(
    result: std::result::Result<(), bollard::errors::Error>,
) -> std::result::Result<(), bollard::errors::Error> {
    match result {
        Err(error) if status_code(&error) == Some(404) => Ok(()),
        other => other,
    }
}
