//! Traces for a collector that speaks OTLP over HTTP: `[agent.otlp]` of deploy.toml. Each deployment is a
//! trace, with a span for each step; of the requests, the proxy picks some.
//!
//! One batch at a time: while the collector is down, the deployments wait in the database and the
//! requests in the proxy, which lets the oldest go.

mod deployment;
mod json;
mod request;
mod send;

pub use send::start;
