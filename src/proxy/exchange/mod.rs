//! One request, from its head to the last byte of the response.

pub mod answer;
pub mod app_request;
pub mod attempt;
pub mod basic_auth;
pub mod compress;
pub mod connect;
pub mod cookie_path;
pub mod download;
pub mod extended_connect;
pub mod forward;
pub mod front;
pub mod logged;
pub mod page;
pub mod redirect;
pub mod send;
pub mod traced;
pub mod tunnel;
