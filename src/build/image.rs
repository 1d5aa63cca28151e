//! A commit becomes an image.

use std::collections::HashMap;
use std::time::Duration;

use crate::engine::bollard::Docker;
use crate::engine::bollard::errors::Error;
use crate::engine::bollard::models::{BuildInfo, BuildInfoAux};
use crate::engine::bollard::query_parameters::{
    BuildImageOptions, BuilderVersion, TagImageOptions,
};
use futures_util::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::{BuildError, Context, cache_key, send, session};
use crate::config;
use crate::ids::AppName;
use crate::source::{Commit, Mirror};
use crate::store::log::Log;

/// What is to be built.
pub struct Request<'a> {
    pub app: &'a AppName,
    pub commit: &'a Commit,
    pub settings: &'a config::Build,
    pub mirror: &'a Mirror,
    /// `name:tag`, at least one. The last is this build's own and leads to the image afterwards; the
    /// ones before it move to whatever was built last.
    pub tags: Vec<String>,
    /// What the image is labelled with. Labels that are the same for every deployment of the app let
    /// an unchanged tree keep its image id.
    pub labels: HashMap<String, String>,
    /// Builds even if an image of this content is there, and runs every step.
    pub no_cache: bool,
    /// The images that were built before, by cache key. Nothing else is used again: whoever builds an
    /// image from one of ours gives it the same labels.
    pub recorded: HashMap<String, String>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// `sha256:…`.
    pub image_id: String,
    /// What went into it, in one word.
    pub cache_key: String,
    /// An image of the same content and settings was there; nothing was built.
    pub cached: bool,
}

/// Builds the image, or finds it, and tags it. The same call again, also after the agent was killed
/// in the middle, gives the same result. `cancel` and the timeout end the build on the engine too.
pub async fn image(
    docker: &Docker,
    request: &Request<'_>,
    log: &Log,
    cancel: &CancellationToken,
) -> Result<Built, BuildError> {
    let mut progress = Progress::default();
    let limit = request.settings.timeout;
    let built = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(BuildError::Cancelled),
        built = tokio::time::timeout(limit, run(docker, request, log, &mut progress)) => built,
    };
    built.unwrap_or_else(|_| {
        Err(BuildError::TimedOut {
            after: limit,
            log_tail: progress.tail(),
        })
    })
}

async fn run(
    docker: &Docker,
    request: &Request<'_>,
    log: &Log,
    progress: &mut Progress,
) -> Result<Built, BuildError> {
    let context = read(request).await?;
    let key = cache_key(request.app, &context, request.settings);
    if !request.no_cache
        && let Some(image_id) = request.recorded.get(&key).cloned()
        && tag(docker, &image_id, request).await?
    {
        log.line("nothing that goes into the image has changed: it is not built again");
        return Ok(Built {
            image_id,
            cache_key: key,
            cached: true,
        });
    }
    let image_id = build(docker, request, context, log, progress).await?;
    if !tag(docker, &image_id, request).await? {
        return Err(BuildError::NotThere(format!("`{image_id}` is not there")));
    }
    Ok(Built {
        image_id,
        cache_key: key,
        cached: false,
    })
}

async fn read(request: &Request<'_>) -> Result<Context, BuildError> {
    let mirror = request.mirror.clone();
    let commit = request.commit.clone();
    let settings = request.settings.clone();
    tokio::task::spawn_blocking(move || Context::read(&mirror, &commit, &settings))
        .await
        .expect("reading a context does not panic")
}

/// Gives the image its tags and asks the engine whether they lead to it. `false`: it is gone.
async fn tag(docker: &Docker, id: &str, request: &Request<'_>) -> Result<bool, BuildError> {
    let tagged = futures_util::future::join_all(request.tags.iter().map(|tag| {
        let (repo, name) = tag.rsplit_once(':').unwrap_or((tag, "latest"));
        let options = TagImageOptions {
            repo: Some(repo.to_owned()),
            tag: Some(name.to_owned()),
        };
        docker.tag_image(id, Some(options))
    }));
    for done in tagged.await {
        match done {
            Err(error) if is_missing(&error) => return Ok(false),
            done => done?,
        }
    }
    let image = match docker.inspect_image(id).await {
        Err(error) if is_missing(&error) => return Ok(false),
        found => found?,
    };
    let has = image.repo_tags.unwrap_or_default();
    // The names before the last may be shared with another agent on the same engine, which builds
    // the same commit with labels of its own and may have moved them on already.
    match request.tags.last().filter(|tag| !has.contains(tag)) {
        Some(tag) => {
            let message = format!("`{tag}` does not lead to `{id}`");
            Err(BuildError::NotThere(message))
        }
        None => Ok(true),
    }
}

async fn build(
    docker: &Docker,
    request: &Request<'_>,
    context: Context,
    log: &Log,
    progress: &mut Progress,
) -> Result<String, BuildError> {
    let (entries, kib) = (context.entries(), context.size().div_ceil(1024));
    log.line(&format!(
        "sending {entries} files and folders, {kib} KiB, to the builder"
    ));
    let options = options(request, &context);
    let (body, sending) = send::send(context);
    // bollard's own limit is for quick calls: ours is the timeout around all of this.
    let docker = (docker.clone()).with_timeout(request.settings.timeout + Duration::from_secs(60));
    let stream = session::build(docker, options, body)
        .map_err(|e| BuildError::Docker(format!("the build's thread cannot be started: {e}")))?;
    let built = follow(stream, log, progress).await;
    if built.is_err()
        && let Ok(Err(error @ BuildError::Source(_))) = sending.await
    {
        return Err(error);
    }
    built
}

fn options(request: &Request<'_>, context: &Context) -> BuildImageOptions {
    let args = request.settings.args.clone();
    BuildImageOptions {
        dockerfile: context.dockerfile.clone(),
        // This build's own tag keeps the image if the agent dies before the others are made.
        t: request.tags.last().cloned(),
        nocache: request.no_cache,
        rm: true,
        forcerm: true,
        buildargs: Some(args.into_iter().collect()),
        labels: Some(request.labels.clone()),
        version: BuilderVersion::BuilderBuildKit,
        session: Some(session_id()),
        ..Default::default()
    }
}

/// Reads the engine's answer to its end and returns the image's id.
async fn follow(
    stream: impl Stream<Item = Result<BuildInfo, Error>>,
    log: &Log,
    progress: &mut Progress,
) -> Result<String, BuildError> {
    let mut image = None;
    let mut stream = std::pin::pin!(stream);
    while let Some(message) = stream.next().await {
        match message {
            Ok(info) => match info.aux {
                Some(BuildInfoAux::BuildKit(status)) => {
                    for line in progress.take(status) {
                        log.line(&line);
                    }
                }
                Some(BuildInfoAux::Default(id)) => image = id.id,
                None => {}
            },
            Err(Error::DockerStreamError { error }) => return Err(failed(progress, error)),
            Err(error) => return Err(error.into()),
        }
    }
    image.ok_or_else(|| BuildError::NotThere("it did not say which image it made".into()))
}

fn failed(progress: &Progress, error: String) -> BuildError {
    let (step, message, log_tail) =
        (progress.failure()).unwrap_or_else(|| ("the Dockerfile".into(), error, progress.tail()));
    BuildError::Failed {
        step,
        message,
        log_tail,
    }
}

fn is_missing(error: &Error) -> bool {
    matches!(
        error,
        Error::DockerResponseServerError {
            status_code: 404,
            ..
        }
    )
}

/// A new name under which BuildKit finds this build's session, whose connection gives it the logins for
/// registries.
fn session_id() -> String {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).expect("the operating system gives random bytes");
    format!("cutover-{}", hex::encode(random))
}
