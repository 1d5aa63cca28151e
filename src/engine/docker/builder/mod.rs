//! Builds and names images with the BuildKit that is part of the Docker Engine.

use std::io;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{BuildInfo, BuildInfoAux};
use bollard::query_parameters::{BuildImageOptions, BuilderVersion, TagImageOptions};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use super::{Docker, EngineError, Result, status_code};
use crate::engine::{BuildFailure, BuildSpec};
use crate::store::log::Log;

mod mask;
mod progress;
mod session;

use mask::Mask;
use progress::Progress;

/// bollard's default timeout is meant for short calls. The caller's timeout ends a build; this one
/// only has to be longer.
const BEYOND_TIMEOUT: Duration = Duration::from_secs(60);

impl Docker {
    pub async fn build(
        &self,
        spec: &BuildSpec<'_>,
        context: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        log: &Log,
    ) -> std::result::Result<String, BuildFailure> {
        let docker = self.client()?.with_timeout(spec.timeout + BEYOND_TIMEOUT);
        let stream = session::build(docker, options(spec), context).map_err(|error| {
            EngineError::Stopped(format!("failed to start the build's thread: {error}"))
        })?;
        let mask = Mask::new(spec.args);
        let followed = self.follow(stream, &mask, log).await;
        followed.map_err(|failure| mask.hide_in(failure))
    }

    /// Reads the engine's messages to the end and returns the image's id.
    async fn follow(
        &self,
        stream: impl Stream<Item = std::result::Result<BuildInfo, Error>>,
        mask: &Mask<'_>,
        log: &Log,
    ) -> std::result::Result<String, BuildFailure> {
        let mut progress = Progress::default();
        let mut image = None;
        let mut stream = std::pin::pin!(stream);
        while let Some(message) = stream.next().await {
            match message {
                Ok(info) => match info.aux {
                    Some(BuildInfoAux::BuildKit(status)) => {
                        for line in progress.take(status) {
                            log.line(&mask.hide(line));
                        }
                    }
                    Some(BuildInfoAux::Default(id)) => image = id.id,
                    None => {}
                },
                Err(Error::DockerStreamError { error }) => {
                    return Err(failed(&mut progress, error));
                }
                Err(error) => return Err(self.failed("build the image")(error).into()),
            }
        }
        image.ok_or_else(|| BuildFailure::Engine(not_there("it did not report the image's id")))
    }

    pub async fn tag_image(&self, id: &str, names: &[String]) -> Result<bool> {
        let docker = self.client()?;
        let tagged = futures_util::future::join_all(names.iter().map(|name| {
            let (repo, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
            let options = TagImageOptions {
                repo: Some(repo.to_owned()),
                tag: Some(tag.to_owned()),
            };
            docker.tag_image(id, Some(options))
        }));
        for done in tagged.await {
            match done {
                Err(error) if status_code(&error) == Some(404) => return Ok(false),
                done => done.map_err(self.failed(format!("name the image `{id}`")))?,
            }
        }
        let image = match docker.inspect_image(id).await {
            Err(error) if status_code(&error) == Some(404) => return Ok(false),
            found => found.map_err(self.failed(format!("look at the image `{id}`")))?,
        };
        let has = image.repo_tags.unwrap_or_default();
        // The names before the last may be shared with another agent on the same engine, which builds
        // the same commit with labels of its own and may have moved them on already.
        match names.last().filter(|name| !has.contains(name)) {
            Some(name) => Err(not_there(&format!("`{name}` does not point to `{id}`"))),
            None => Ok(true),
        }
    }
}

fn options(spec: &BuildSpec<'_>) -> BuildImageOptions {
    let args = spec.args.iter();
    BuildImageOptions {
        dockerfile: spec.dockerfile.to_owned(),
        t: Some(spec.name.to_owned()),
        nocache: spec.no_cache,
        pull: spec.pull.then(|| "true".to_owned()),
        rm: true,
        forcerm: true,
        buildargs: Some(args.map(|(k, v)| (k.clone(), v.clone())).collect()),
        labels: Some(spec.labels.clone()),
        version: BuilderVersion::BuilderBuildKit,
        session: Some(session::id()),
        ..Default::default()
    }
}

fn failed(progress: &mut Progress, error: String) -> BuildFailure {
    let (step, message, log_tail) =
        (progress.failure()).unwrap_or_else(|| ("the Dockerfile".into(), error, progress.tail()));
    BuildFailure::Step {
        step,
        message,
        log_tail,
    }
}

fn not_there(what: &str) -> EngineError {
    EngineError::Refused {
        what: "keep the image that it built".into(),
        cause: what.into(),
    }
}
