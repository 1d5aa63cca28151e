//! Cutover: push a commit, and the new containers take over behind Cutover's own reverse proxy
//! without one dropped request.
//!
//! The modules stand in the order in which a push travels:
//!
//! ```text
//! delivery -> queue -> fetch -> build -> test -> release command -> start -> probe
//!          -> SWITCH -> drain -> bake -> retire
//! ```

pub mod ids;

pub mod config;
pub mod webhook;

pub mod deploy;

pub mod build;
pub mod engine;
pub mod proxy;
pub mod source;

pub mod api;
pub mod report;
pub mod store;

pub mod cli;
