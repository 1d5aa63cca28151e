//! Why an image could not be built, and what to do about it.

use std::time::Duration;

use super::advice::{advice, is_engines_network};
use crate::engine::{BuildFailure, EngineError};
use crate::source::SourceError;

/// Each variant's text says what failed and why; [`BuildError::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the path `{0}` leads out of the repository")]
    Outside(String),
    #[error("the commit has no folder `{0}` to build from")]
    NoContext(String),
    #[error(
        "there is no `{dockerfile}` in this commit, neither from its root nor in the context `{context}`"
    )]
    NoDockerfile { dockerfile: String, context: String },
    #[error("the Dockerfile `{0}` is not a file")]
    DockerfileNotAFile(String),
    #[error("the commit has no folder `{0}` to serve")]
    NoSite(String),
    #[error("there is no `{fallback}` in `{dir}` to fall back on")]
    NoFallback { fallback: String, dir: String },
    #[error(
        "this `cutover` was built without its server for static sites, which must be linked statically"
    )]
    NoServer,
    #[error("line {line} of `{file}`: {why}")]
    BadIgnore {
        file: String,
        line: usize,
        why: &'static str,
    },
    #[error("{} in git only as Git LFS pointers, and cannot be fetched: {error}", pointers(.paths))]
    Lfs {
        paths: Vec<String>,
        error: Box<SourceError>,
    },
    #[error(
        "`{path}` is to be written in the encoding `{name}` by .gitattributes, which is not known"
    )]
    Encoding { path: String, name: String },
    #[error("`{link}` is a symbolic link out of the repository, to `{target}`")]
    LinkOut { link: String, target: String },
    #[error("the tree of this commit has an entry with the invalid name `{0}`")]
    BadName(String),
    #[error("`{path}` cannot be written to a checkout or read from it: {why}")]
    Checkout { path: String, why: String },
    #[error("`{command}` succeeded, but there is no image `{image}`")]
    NoImage { command: String, image: String },
    #[error("the build context is too large: {0}")]
    TooLarge(String),
    #[error(
        "{place} has the program `{image}` read the Dockerfile, which `build.frontends` does not allow"
    )]
    Frontend { place: String, image: String },
    #[error("the image `{0}` is not on this server, and `build.pull` is \"never\"")]
    NotHere(String),
    #[error(
        "only Docker's builder finds out which images the Dockerfile builds on, and `build.pull` is \"never\""
    )]
    UnknownBase,
    #[error("the build failed at `{step}`: {message}")]
    Failed {
        /// The Dockerfile's line, as BuildKit names it.
        step: String,
        message: String,
        /// The failing step's last lines of output, oldest first.
        log_tail: Vec<String>,
    },
    #[error("the build timed out after {}", seconds(*.after))]
    TimedOut {
        after: Duration,
        log_tail: Vec<String>,
    },
    #[error("`build.{key}` cannot be read: {why}")]
    Input { key: String, why: String },
    #[error("the build was cancelled")]
    Cancelled,
    #[error(transparent)]
    Engine(EngineError),
    #[error("Docker reported a successful build, but the image `{0}` is gone")]
    Gone(String),
}

impl BuildError {
    /// A short name for programs, as the API's `error.code`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Source(error) => error.code(),
            Self::Outside(_) | Self::NoContext(_) => "no_context",
            Self::NoDockerfile { .. } | Self::DockerfileNotAFile(_) => "no_dockerfile",
            Self::NoSite(_) | Self::NoFallback { .. } => "no_site",
            Self::NoServer => "no_site_server",
            Self::BadIgnore { .. } => "bad_dockerignore",
            Self::Lfs { .. } => "lfs_pointer",
            Self::Encoding { .. } => "unknown_encoding",
            Self::LinkOut { .. } => "link_out_of_context",
            Self::BadName(_) => "bad_tree",
            Self::Checkout { .. } => "checkout",
            Self::NoImage { .. } => "no_image",
            Self::TooLarge(_) => "context_too_large",
            Self::Frontend { .. } => "frontend_refused",
            Self::NotHere(_) | Self::UnknownBase => "image_not_here",
            Self::Failed { message, .. } if is_engines_network(message) => "docker_error",
            Self::Failed { .. } => "build_failed",
            Self::TimedOut { .. } => "build_timeout",
            Self::Input { .. } => "build_input",
            Self::Cancelled => "cancelled",
            Self::Engine(EngineError::Unreachable { .. }) => "docker_unreachable",
            Self::Engine(_) | Self::Gone(_) => "docker_error",
        }
    }

    /// What to do next.
    pub fn hint(&self) -> &str {
        match self {
            Self::Source(error) => error.hint(),
            Self::Outside(_) | Self::NoContext(_) => {
                "correct the app's `build.context` or `build.contexts` in deploy.toml: it must be a folder of the repository; `.` is the root"
            }
            Self::NoDockerfile { .. } | Self::DockerfileNotAFile(_) => {
                "commit it, or correct the app's `build.dockerfile` in deploy.toml: it must be a path from the repository's root; an app that is a folder of files needs none, with `kind = \"static\"` and `dir`"
            }
            Self::NoSite(_) => {
                "commit it, or correct the app's `dir` in deploy.toml: it must be a folder of the repository; `.` is the root"
            }
            Self::NoFallback { .. } => {
                "commit it, or correct the app's `fallback` in deploy.toml: it must be a path below `dir`"
            }
            Self::NoServer => {
                "on Debian or Ubuntu: run `apt-get install libc6-dev`, touch build.rs and build again"
            }
            Self::BadIgnore { .. } => "correct the line and push again",
            Self::Lfs { error, .. } => match **error {
                SourceError::Limited { .. } | SourceError::Disk { .. } => error.hint(),
                SourceError::Refused { .. } => {
                    "check that the app's `source` may read them, and that the account's quota for Git LFS is not used up; or commit the files themselves (`git lfs migrate export`), or exclude them in .dockerignore"
                }
                _ => {
                    "push them (`git lfs push --all origin`) and check that the app's `source` may read them; or commit the files themselves (`git lfs migrate export`), or exclude them in .dockerignore"
                }
            },
            Self::Encoding { .. } => {
                "correct its `working-tree-encoding`, or exclude the file in .dockerignore"
            }
            Self::LinkOut { .. } => "point it to a path within the repository",
            Self::BadName(_) => "check the repository with `git fsck`",
            Self::Checkout { .. } => {
                "check the space on the disk of `agent.data_dir` and the names in the repository"
            }
            Self::NoImage { .. } => {
                "have the command give its image the name that `{image}` in its arguments and `IMAGE` in its environment stand for, in the engine of `DOCKER_HOST`"
            }
            Self::Frontend { .. } => {
                "such a program gets the build's files and secrets: remove the line, or, if you trust it, allow it under `[apps.NAME.build]` in deploy.toml: `frontends = [\"docker/dockerfile:*\", \"IMAGE\"]`"
            }
            Self::NotHere(_) => {
                "put it there with `docker load` or `docker pull`, or let Docker fetch it with `pull = \"missing\"` under `[apps.NAME.build]` in deploy.toml"
            }
            Self::UnknownBase => {
                "write the images' names without patterns (`${VERSION%.*}`) or `TARGETSTAGE`, or set `pull = \"missing\"` under `[apps.NAME.build]` in deploy.toml"
            }
            Self::TooLarge(_) => "exclude what the image does not need in .dockerignore",
            Self::Failed {
                step,
                message,
                log_tail,
            } => advice(step, &format!("{message}\n{}", log_tail.join("\n"))).unwrap_or(
                "see the failing step's output in the log; correct the cause and push again",
            ),
            Self::TimedOut { .. } => {
                "raise the app's `build.timeout` in deploy.toml if the build needs more time"
            }
            Self::Input { .. } => {
                "set the variable of the agent, or create the file so that the agent's user can read it"
            }
            Self::Cancelled => "deploy again when ready",
            Self::Engine(EngineError::Unreachable { .. }) => {
                "check that Docker is running; run `cutover doctor` for details"
            }
            Self::Engine(_) | Self::Gone(_) => "check the Docker daemon's own log",
        }
    }

    /// The last lines of the log, oldest first, if the build itself failed.
    pub fn log_tail(&self) -> &[String] {
        match self {
            Self::Failed { log_tail, .. } | Self::TimedOut { log_tail, .. } => log_tail,
            _ => &[],
        }
    }
}

impl From<EngineError> for BuildError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<BuildFailure> for BuildError {
    fn from(failure: BuildFailure) -> Self {
        match failure {
            BuildFailure::Step {
                step,
                message,
                log_tail,
            } => Self::Failed {
                step,
                message,
                log_tail,
            },
            BuildFailure::Engine(error) => Self::Engine(error),
        }
    }
}

/// The first few paths, and how many more there are, as the subject of a sentence.
fn pointers(paths: &[String]) -> String {
    const NAMED: usize = 5;
    let named: Vec<String> = (paths.iter().take(NAMED))
        .map(|path| format!("`{}`", path.escape_debug()))
        .collect();
    match (named.len(), paths.len() - named.len()) {
        (1, 0) => format!("{} is", named[0]),
        (_, 0) => format!("{} are", named.join(", ")),
        (_, more) => format!("{} and {more} more are", named.join(", ")),
    }
}

fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        s if s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}
