//! Setting statuses at a forge: of commits, and of the forge's own deployments. `api` holds a pure
//! file for each forge: a [`fact::Fact`] in, requests out.

pub mod answer;
mod api;
mod app_token;
mod fact;
pub mod http;
mod link;
mod send;
pub mod session;
pub mod token;

pub use send::send;
