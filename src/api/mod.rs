//! The agent's HTTP interface: webhooks, the JSON API, git over HTTP, health and metrics. It is served
//! on the configured address and on the Unix socket; requests over the socket need no token.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::deploy::Agent;

mod actions;
#[cfg(test)]
mod again;
mod apps;
pub mod auth;
mod body;
mod certificates;
mod configuration;
mod cron;
mod deployments;
mod error;
mod etag;
#[cfg(test)]
mod fixture;
pub mod git;
mod health;
mod hold;
mod instances;
mod json;
pub mod listen;
mod log;
mod log_level;
mod metrics;
mod notify;
mod openapi;
mod orphans;
mod output;
mod page;
mod path;
mod peer;
mod places;
pub mod push_option;
mod pushes;
pub mod refusals;
mod removal;
mod responses;
#[cfg(test)]
mod roles;
mod scale;
mod secrets;
mod session;
mod stop;
mod tokens;
mod variables;
mod view;
mod web;
mod webhook_secrets;
mod webhooks;

pub use body::Bodies;
pub use error::ApiError;
pub use health::Health;
pub use refusals::Refusals;
pub use session::Sessions;
pub use web::Links;
pub use webhook_secrets::WebhookSecrets;

/// What the handlers share.
pub struct Api {
    pub agent: Arc<Agent>,
    pub tokens: auth::Tokens,
    pub health: Health,
    pub bodies: Bodies,
    pub refusals: Refusals,
    pub webhook_secrets: WebhookSecrets,
    pub links: Links,
    /// Places for programs that people talk to.
    pub sessions: Sessions,
}

type Shared = axum::extract::State<Arc<Api>>;

/// The largest body of an API call, in bytes; only webhooks may be longer.
const SMALL_BODY: usize = 64 << 10;

/// The routes that need no token.
fn open() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(webhooks::receive))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .routes(routes!(openapi::document))
}

/// The routes that need a token.
fn guarded() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(apps::list))
        .routes(routes!(apps::show, removal::remove))
        .routes(routes!(apps::deployments, deployments::deploy))
        .routes(routes!(apps::releases))
        .routes(routes!(pushes::list))
        .routes(routes!(output::show))
        .routes(routes!(instances::list))
        .routes(routes!(variables::list, variables::change))
        .routes(routes!(stop::stop))
        .routes(routes!(stop::start))
        .routes(routes!(hold::pin))
        .routes(routes!(hold::unpin))
        .routes(routes!(hold::maintenance))
        .routes(routes!(session::run))
        .routes(routes!(session::exec))
        .routes(routes!(cron::list))
        .routes(routes!(cron::runs, cron::run))
        .routes(routes!(deployments::rollback))
        .routes(routes!(deployments::restart))
        .routes(routes!(scale::show, scale::change))
        .routes(routes!(secrets::list, secrets::change))
        .routes(routes!(secrets::rekey))
        .routes(routes!(deployments::show))
        .routes(routes!(log::show))
        .routes(routes!(deployments::cancel))
        .routes(routes!(pushes::receive))
        .routes(routes!(configuration::show))
        .routes(routes!(configuration::reload))
        .routes(routes!(actions::list))
        .routes(routes!(actions::check))
        .routes(routes!(certificates::list))
        .routes(routes!(certificates::renew))
        .routes(routes!(orphans::list))
        .routes(routes!(orphans::gc))
        .routes(routes!(orphans::adopt))
        .routes(routes!(web::links::create))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tokens::rotate))
        .routes(routes!(notify::test))
        .routes(routes!(log_level::show, log_level::change))
}

/// Every path of the agent's HTTP interface.
pub fn router(api: Arc<Api>) -> Router {
    let guarded = Router::from(guarded())
        .route_layer(axum::middleware::from_fn_with_state(
            api.clone(),
            auth::authenticate,
        ))
        .layer(axum::middleware::from_fn(etag::tagged))
        .layer(DefaultBodyLimit::max(SMALL_BODY));
    let git = git::router(git::of_agent(api.clone()));
    Router::from(open())
        // Whoever copies the URL into a forge's form may add a slash.
        .route("/hooks/{app}/", axum::routing::post(webhooks::receive))
        .merge(guarded)
        .merge(web::router(api.clone()))
        .fallback(web::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(axum::middleware::map_response(error::shaped))
        .nest("/git", git)
        .layer(axum::middleware::from_fn_with_state(
            api.clone(),
            refusals::watch,
        ))
        .layer(axum::middleware::from_fn(log_level::requests))
        .with_state(api)
}
