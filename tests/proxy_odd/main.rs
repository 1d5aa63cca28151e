//! Clients and apps that are hostile, broken or merely odd: what they do costs nobody else anything,
//! and nothing passes for what it is not.

#[path = "../proxy_support/mod.rs"]
mod proxy_support;

mod apps;
mod clients;
mod http2;
mod websocket;
