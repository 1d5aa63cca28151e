//! What the path and the query of a request say, and the apps and deployments that they name.

use std::sync::Arc;

use serde::Deserialize;
use utoipa::IntoParams;

use super::{Api, ApiError};
use crate::config::App;
use crate::ids::DeploymentId;
use crate::store::deployments::{self as table, Deployment};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct AppPath {
    /// The app's name, as in `[apps.NAME]` of deploy.toml.
    #[param(example = "hello")]
    pub app: String,
}

/// The app that a path names.
pub fn named(api: &Api, name: &str) -> Result<Arc<App>, ApiError> {
    let app = name.parse().ok().and_then(|name| api.agent.app(&name));
    app.ok_or_else(|| ApiError::no_such_app(name))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FollowQuery {
    /// Stream the log until the deployment has ended; the last line is its rest state.
    #[serde(default)]
    #[param(default = false)]
    pub follow: bool,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct DeploymentPath {
    /// The deployment's id.
    #[param(example = "d01m5z8k2q4x7a")]
    pub id: String,
}

/// The deployment that a path names.
pub async fn find(api: &Api, text: &str) -> Result<Deployment, ApiError> {
    let missing = || ApiError::no_such_deployment(text);
    let id: DeploymentId = text.parse().map_err(|_| missing())?;
    api.agent
        .store
        .read(move |db| table::get(db, &id))
        .await?
        .ok_or_else(missing)
}
