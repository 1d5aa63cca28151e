//! configured address and the Unix socket; over the socket no token is asked for.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

use crate::deploy::Agent;

mod apps;
pub mod auth;
mod body;
mod deployments;
mod error;
pub mod git;
mod health;
mod json;
pub mod listen;
mod metrics;
mod openapi;
mod page;
mod peer;
pub mod push_option;
mod pushes;
pub mod refusals;
mod view;
mod webhook_secrets;
mod webhooks;

pub use body::Bodies;
pub use error::ApiError;
pub use health::Health;
pub use refusals::Refusals;
pub use webhook_secrets::WebhookSecrets;

/// What a handler needs.
pub struct Api {
    pub agent: Arc<Agent>,
    pub token: auth::Token,
    pub health: Health,
    pub bodies: Bodies,
    pub refusals: Refusals,
    pub webhook_secrets: WebhookSecrets,
}

type Shared = axum::extract::State<Arc<Api>>;

/// Bodies of API calls are short; only webhooks may be long.
const SMALL_BODY: usize = 64 << 10;

/// Every path that the agent answers at.
pub fn router(api: Arc<Api>) -> Router {
    let guarded = Router::new()
        .route("/apps", get(apps::list))
        .route("/apps/{app}", get(apps::show))
        .route(
            "/apps/{app}/deployments",
            get(apps::deployments).post(deployments::deploy),
        )
        .route("/apps/{app}/releases", get(apps::releases))
        .route("/apps/{app}/rollback", post(deployments::rollback))
        .route("/deployments/{id}", get(deployments::show))
        .route("/deployments/{id}/log", get(deployments::log))
        .route("/deployments/{id}/cancel", post(deployments::cancel))
        .route("/pushes", post(pushes::receive))
        .route_layer(axum::middleware::from_fn_with_state(
            api.clone(),
            auth::require,
        ))
        .layer(DefaultBodyLimit::max(SMALL_BODY));
    let git = git::router(git::of_agent(api.clone()));
    Router::new()
        .route("/hooks/{app}", post(webhooks::receive))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/api/v1/openapi.json", get(openapi::document))
        .nest("/api/v1", guarded)
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(axum::middleware::map_response(error::shaped))
        .nest("/git", git)
        .layer(axum::middleware::from_fn_with_state(
            api.clone(),
            refusals::watch,
        ))
        .with_state(api)
}
