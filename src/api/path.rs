//! What the path and the query of a request contain, and the apps and deployments that they name.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{Api, ApiError, auth};
use crate::config::{App, similar};
use crate::deploy::follow::Until;
use crate::ids::{AppName, DeploymentId};
use crate::principal::{Principal, Role};
use crate::store::app_names;
use crate::store::deployments::{self as table, Deployment};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct AppPath {
    /// The app's name, as in `[apps.NAME]` of deploy.toml.
    #[param(example = "hello")]
    pub app: String,
}

/// What says that a request that comes again is the same one.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
// Read from the headers themselves: two of them are no one key.
#[allow(dead_code)]
pub struct OnceHeader {
    /// Any 1 to 255 visible characters, such as the id of a pipeline.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        nullable = false
    )]
    key: Option<String>,
}

/// The app that a path names, without checking the caller.
pub fn configured(api: &Api, name: &str) -> Result<Arc<App>, ApiError> {
    let app = name.parse().ok().and_then(|name| api.agent.app(&name));
    app.ok_or_else(|| unknown(api, name))
}

/// The app that a path names, if it is in deploy.toml and the caller may do this with it.
pub async fn acting(
    api: &Api,
    caller: &Principal,
    role: Role,
    name: &str,
) -> Result<Arc<App>, ApiError> {
    let app = known(api, caller, role, name).await?;
    match api.agent.app(&app) {
        Some(app) => Ok(app),
        None => {
            let message = format!("`{app}` is no longer in deploy.toml");
            let hint = format!(
                "add it back and run `cutover reload`, or remove it with `cutover remove {app}`"
            );
            Err(ApiError::new(
                StatusCode::CONFLICT,
                "not_configured",
                message,
                hint,
            ))
        }
    }
}

/// An app that is or was in deploy.toml, if the caller may do this with it.
pub async fn known(
    api: &Api,
    caller: &Principal,
    role: Role,
    name: &str,
) -> Result<AppName, ApiError> {
    let unknown = || match renamed(api, name) {
        Some(_) => unknown(api, name),
        None => unknown(api, name).but_hint(similar(api, caller, name)),
    };
    let app: AppName = name.parse().map_err(|_| unknown())?;
    auth::check(caller, role, &app)?;
    let serves = || api.agent.unrecorded.apps().iter().any(|it| it == name);
    if api.agent.app(&app).is_some() || serves() {
        return Ok(app);
    }
    let asked = app.clone();
    let is_known = api
        .agent
        .store
        .read(move |db| app_names::is_known(db, &asked));
    match is_known.await? {
        true => Ok(app),
        false => Err(unknown()),
    }
}

fn similar(api: &Api, caller: &Principal, name: &str) -> String {
    let near = nearest(api, caller, name);
    near.map_or(String::new(), |near| format!("did you mean `{near}`?"))
}

/// The app that was probably meant, of those that the caller may see.
pub fn nearest(api: &Api, caller: &Principal, name: &str) -> Option<String> {
    let in_force = api.agent.in_force();
    let seen = in_force.config.apps.keys().filter(|app| caller.sees(app));
    similar::nearest(name, seen.map(AppName::as_str)).map(str::to_owned)
}

/// The app that had this name before.
pub fn renamed(api: &Api, name: &str) -> Option<Arc<App>> {
    let in_force = api.agent.in_force();
    let was = |app: &&Arc<App>| app.was.as_ref().is_some_and(|was| was.as_str() == name);
    in_force.config.apps.values().find(was).cloned()
}

fn unknown(api: &Api, name: &str) -> ApiError {
    match renamed(api, name) {
        Some(app) => ApiError::new(
            StatusCode::NOT_FOUND,
            "renamed",
            format!("the app `{name}` has been renamed to `{}`", app.name),
            format!("use that name; its webhook is `/hooks/{}`", app.name),
        ),
        None => ApiError::no_such_app(name),
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FollowQuery {
    /// Stream the log until the deployment has ended; the last line is its rest state.
    #[serde(default)]
    #[param(default = false)]
    pub follow: bool,
    /// With `follow`: where the stream ends.
    #[serde(default)]
    #[param(inline)]
    pub until: UntilQuery,
}

/// `end`: the deployment's rest state. `switch`: from then on requests go to the new release, whose bake
/// may still roll it back; the last line is `serving`, or the rest state if it comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UntilQuery {
    Switch,
    #[default]
    End,
}

impl FollowQuery {
    pub fn until(&self) -> Until {
        match (self.follow, self.until) {
            (false, _) => Until::Now,
            (true, UntilQuery::Switch) => Until::Switch,
            (true, UntilQuery::End) => Until::End,
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct DeploymentPath {
    /// The deployment's id.
    #[param(example = "d01m5z8k2q4x7a")]
    pub id: String,
}

/// The deployment that a path names, if the caller may do this with it.
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
