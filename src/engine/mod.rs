//! Instances on the Docker Engine: start, look at, stop, remove. What is in an image is not its
//! business.
//!
//! Every call can be repeated: names are derived from the deployment, so "already exists" means
//! "done before", and "not there" means "already gone".

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;

use crate::ids::AgentId;

mod command;
mod container;
mod images;
mod network;

pub use command::Command;
pub use container::{Found, InstanceSpec, Status};
pub use network::Network;

/// Everything that Cutover makes carries these, so that what is left over can be found.
pub mod label {
    pub const AGENT: &str = "cutover.agent";
    pub const APP: &str = "cutover.app";
    pub const DEPLOYMENT: &str = "cutover.deployment";
    pub const RELEASE: &str = "cutover.release";
    /// The agent's data folder: for people, and to tell whose a left-over is when the folder is gone.
    pub const DATA_DIR: &str = "cutover.data-dir";
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Nothing was done; it can be tried again when the engine is back.
    #[error("Docker does not answer at `{host}`: {cause}")]
    Unreachable { host: String, cause: String },
    #[error("Docker could not {what}: {cause}")]
    Refused { what: String, cause: String },
    #[error("{0}")]
    Stopped(String),
}

pub type Result<T> = std::result::Result<T, EngineError>;

/// One Docker Engine, and this agent's share of it.
#[derive(Clone)]
pub struct Engine {
    host: String,
    agent: AgentId,
    data_dir: String,
    /// Held while the network is looked for or made: Docker makes two of one name.
    network: Arc<tokio::sync::Mutex<()>>,
}

impl Engine {
    pub fn new(host: String, agent: AgentId, data_dir: &std::path::Path) -> Self {
        Self {
            host,
            agent,
            data_dir: data_dir.display().to_string(),
            network: Arc::default(),
        }
    }

    /// A client for it. The engine is asked nothing yet, but its socket must be there.
    pub fn docker(&self) -> Result<Docker> {
        Docker::connect_with_host(&self.host).map_err(|e| self.unreachable(&e))
    }

    /// Whether it answers, within five seconds.
    pub async fn ping(&self) -> Result<()> {
        let docker = self.docker()?.with_timeout(Duration::from_secs(5));
        docker
            .ping()
            .await
            .map(drop)
            .map_err(|e| self.unreachable(&e))
    }

    /// The labels that everything made by this agent carries.
    pub fn labels(&self) -> HashMap<String, String> {
        HashMap::from([
            (label::AGENT.to_owned(), self.agent.to_string()),
            (label::DATA_DIR.to_owned(), self.data_dir.clone()),
        ])
    }

    fn ours(&self) -> HashMap<String, Vec<String>> {
        HashMap::from([(
            "label".to_owned(),
            vec![format!("{}={}", label::AGENT, self.agent)],
        )])
    }

    fn unreachable(&self, cause: &dyn std::error::Error) -> EngineError {
        EngineError::Unreachable {
            host: self.host.clone(),
            cause: root_cause(cause),
        }
    }

    /// Tells an engine that is not there from one that said no.
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
            other => self.unreachable(&other),
        }
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
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

/// Turns "there is no such thing" into "it is gone".
fn gone_is_done(
    result: std::result::Result<(), bollard::errors::Error>,
) -> std::result::Result<(), bollard::errors::Error> {
    match result {
        Err(error) if status_code(&error) == Some(404) => Ok(()),
        other => other,
    }
}
