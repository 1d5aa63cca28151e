//! The dashboard: pages for a browser, from the same queries and views as the API. Every page is
//! complete without script; `assets/script.js` only keeps it up to date.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

use super::{Api, SMALL_BODY, log};

mod actions;
mod app;
mod app_log;
mod assets;
mod badge;
mod certificates;
mod chart;
mod compress;
mod confirm;
mod cron;
mod deliveries;
mod deployment;
mod fields;
mod fold;
mod forge_link;
mod hold;
mod home;
mod instances;
mod layout;
pub mod links;
mod live;
mod log_tail;
mod machine;
mod parts;
mod refusal;
mod scale;
mod server;
mod session;
mod sign_in;
mod stop;
#[cfg(test)]
mod tests;
mod timeline;
mod viewer;

pub use links::Links;
pub use refusal::{not_found, page as refusal};

/// Every page, and what the pages need.
pub fn router(api: Arc<Api>) -> Router<Arc<Api>> {
    let pages = Router::new()
        .route("/", get(home::show))
        .route("/apps/{app}", get(app::show))
        .route("/apps/{app}/log", get(app_log::show))
        .route("/apps/{app}/deliveries", get(deliveries::show))
        .route(
            "/apps/{app}/deploy",
            get(confirm::deploy).post(actions::deploy),
        )
        .route(
            "/apps/{app}/rollback",
            get(confirm::rollback).post(actions::rollback),
        )
        .route(
            "/apps/{app}/restart",
            get(confirm::restart).post(actions::restart),
        )
        .route("/apps/{app}/scale", get(scale::ask).post(scale::change))
        .route("/apps/{app}/pin", get(hold::ask_pin).post(hold::pin))
        .route(
            "/apps/{app}/maintenance",
            get(hold::ask_maintenance).post(hold::maintenance),
        )
        .route("/apps/{app}/stop", get(stop::ask_stop).post(stop::stop))
        .route("/apps/{app}/start", get(stop::ask_start).post(stop::start))
        .route("/deployments/{id}", get(deployment::show))
        .route("/deployments/{id}/log", get(log::show))
        .route("/deployments/{id}/cancel", post(actions::cancel))
        .route("/deployments/{id}/retry", post(actions::retry))
        .route("/server", get(server::show))
        .route("/sessions/end", post(sign_in::end))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/live", get(live::show))
        .route_layer(from_fn_with_state(api, session::enter));
    let open = Router::new()
        .route("/sign-in", get(sign_in::form).post(sign_in::sign_in))
        .route("/open", get(sign_in::open))
        .route("/badge/{file}", get(badge::show))
        .route("/assets/{hash}/{name}", get(assets::show));
    pages
        .merge(open)
        .layer(DefaultBodyLimit::max(SMALL_BODY))
        .layer(from_fn(compress::compress))
        .layer(axum::middleware::map_response(layout::guarded))
}
