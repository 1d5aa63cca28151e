//! What an image is built from, and what becomes of that.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use super::EngineError;

/// What an image is built from, besides the files.
pub struct BuildSpec<'a> {
    /// The path of the Dockerfile within the files that contain it.
    pub dockerfile: &'a str,
    /// The name of the builder's copy of the files, by which the next build finds it.
    pub shared_key: &'a str,
    /// `name:tag` that the image gets.
    pub name: &'a str,
    pub args: &'a BTreeMap<String, String>,
    pub labels: &'a HashMap<String, String>,
    /// The stage that becomes the image; if absent, the last.
    pub target: Option<&'a str>,
    pub platform: Option<&'a str>,
    /// `host` or `none`.
    pub network: Option<&'a str>,
    pub extra_hosts: &'a BTreeMap<String, String>,
    /// In bytes.
    pub shm_size: Option<u64>,
    /// What `RUN --mount=type=secret` mounts, by id.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// The sockets of the SSH agents that `RUN --mount=type=ssh` reaches, by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// Images that were built with `keeps_cache`, whose steps need not run again.
    pub cache_from: Vec<String>,
    /// The image says what its steps can be recognized by.
    pub keeps_cache: bool,
    /// The builder adds to the image how it was built, if it can.
    pub attests: bool,
    /// The image that lists for it what it contains.
    pub scanner: Option<String>,
    /// Runs every step, even one whose result is cached.
    pub no_cache: bool,
    /// Asks the registries for the base images, even if the engine has some of these names.
    pub pull: bool,
}

/// What the steps of all builds may take of the engine's machine together. Absent: all that there is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BuildLimits {
    /// In bytes.
    pub memory: Option<u64>,
    /// In processors.
    pub cpus: Option<f64>,
}

/// What the engine built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// `sha256:…`
    pub id: String,
    /// The images in registries that it builds on, `name:tag@sha256:…`.
    pub from: Vec<String>,
    /// The digest of the manifest by which the image says how it was built, if the builder added one.
    pub attestation: Option<String>,
}

/// Why the engine did not build an image.
#[derive(Debug, thiserror::Error)]
pub enum BuildFailure {
    #[error("the build failed at `{step}`: {message}")]
    Step {
        /// The Dockerfile's line, as the builder names it.
        step: String,
        message: String,
        /// The failing step's last lines, oldest first.
        log_tail: Vec<String>,
    },
    #[error(transparent)]
    Engine(#[from] EngineError),
}
