//! Setting statuses at a forge: of commits, and of the forge's own deployments. `api` holds a pure
//! file for each forge: a [`fact::Fact`] in, requests out.

mod answer;
mod api;
mod app_token;
mod fact;
mod http;
mod link;
mod send;
mod session;
mod tell;
mod token;

pub(super) use link::{home, page};
pub use tell::Forges;
pub(super) use tell::backoff;
