//! What the path and the query of a request say, and the apps and deployments that they name.

use std::sync::Arc;

use serde::Deserialize;
use utoipa::IntoParams;

use super::{Api, ApiError, auth};
use crate::config::App;
use crate::ids::DeploymentId;
use crate::principal::{Principal, Role};
use crate::store::deployments::{self as table, Deployment};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct AppPath {
    /// The app's name, as in `[apps.NAME]` of deploy.toml.
    #[param(example = "hello")]
    pub app: String,
}

/// The app that a path names, where the caller may do this with it.
pub fn named(api: &Api, caller: &Principal, role: Role, name: &str) -> Result<Arc<App>, ApiError> {
    let app = configured(api, name)?;
    auth::check(caller, role, &app.name)?;
    Ok(app)
}

/// The app that a path names, whoever asks.
pub fn configured(api: &Api, name: &str) -> Result<Arc<App>, ApiError> {
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

/// The deployment that a path names, where the caller may do this with it.
pub async fn find(
    api: &Api,
    caller: &Principal,
    role: Role,
    text: &str,
) -> Result<Deployment, ApiError> {
    let missing = || ApiError::no_such_deployment(text);
    let id: DeploymentId = text.parse().map_err(|_| missing())?;
    let found = api.agent.store.read(move |db| table::get(db, &id)).await?;
    let found = found.filter(|found| caller.sees(&found.app));
    let found = found.ok_or_else(missing)?;
    auth::check_role(caller, role)?;
    Ok(found)
}
