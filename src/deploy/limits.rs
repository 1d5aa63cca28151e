//! What builds may take of this machine, besides the apps that are live on it.

use std::time::Duration;

use super::Agent;
use crate::engine::BuildLimits;

/// How long the engine may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Gives builds the limits of deploy.toml. An error says why those do not hold.
pub async fn apply(agent: &Agent) -> Result<(), String> {
    let in_force = agent.in_force();
    let docker = &in_force.config.docker;
    let limits = BuildLimits {
        memory: docker.build_memory,
        cpus: docker.build_cpus,
    };
    let applied = tokio::time::timeout(DEADLINE, agent.engine.limit_builds(limits)).await;
    let applied = applied.unwrap_or_else(|_| Err("Docker does not answer".to_owned()));
    let key = match limits {
        BuildLimits {
            memory: Some(_), ..
        } => Some("docker.build_memory"),
        BuildLimits { cpus: Some(_), .. } => Some("docker.build_cpus"),
        // That builds go last is tried, and not promised.
        _ => None,
    };
    let why = key.zip(applied.err());
    let why = why.map(|(key, why)| format!("`{key}` does not hold: {why}"));
    agent.unlimited.lock().clone_from(&why);
    why.map_or(Ok(()), Err)
}
