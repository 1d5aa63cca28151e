//! Taking away images that this agent made, and no others.

use bollard::Docker;
use bollard::errors::Error;
use bollard::query_parameters::RemoveImageOptions;

use super::BuildError;
use crate::ids::AgentId;

/// The label that says whose an image is.
const OWNER: &str = "cutover.agent";

/// Removes a tag, and with the last tag the image, if `agent` made it. `false`: it is not there, or
/// it is somebody else's. A container that still uses it is an error, never overruled.
pub async fn remove(docker: &Docker, agent: &AgentId, image: &str) -> Result<bool, BuildError> {
    let found = match docker.inspect_image(image).await {
        Ok(found) => found,
        Err(error) if is_missing(&error) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let labels = found.config.and_then(|config| config.labels);
    if labels
        .and_then(|labels| labels.get(OWNER).cloned())
        .as_deref()
        != Some(agent.as_str())
    {
        return Ok(false);
    }
    let options = RemoveImageOptions {
        force: false,
        noprune: false,
        ..Default::default()
    };
    match docker.remove_image(image, Some(options), None).await {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn is_missing(error: &Error) -> bool {
    matches!(
        error,
        Error::DockerResponseServerError {
            status_code: 404,
            ..
        }
    )
}
