//! Builds the image of a commit.

use std::collections::HashMap;

use tokio_util::sync::CancellationToken;

use super::{BuildError, Context, cache_key, send};
use crate::config;
use crate::engine::{BuildSpec, Engine};
use crate::ids::AppName;
use crate::source::{Commit, Mirror};
use crate::store::log::Log;

/// What is to be built.
pub struct Request<'a> {
    pub app: &'a AppName,
    pub commit: &'a Commit,
    pub settings: &'a config::Build,
    pub mirror: &'a Mirror,
    /// `name:tag`, at least one. The last belongs to this build alone and points to the image
    /// afterwards; the ones before it move to whatever was built last.
    pub tags: Vec<String>,
    /// The image's labels. As they are the same for every deployment of the app, an unchanged tree
    /// keeps its image id.
    pub labels: HashMap<String, String>,
    /// Builds even if an image of this content exists, and runs every step.
    pub no_cache: bool,
    /// The images that were built before, by cache key. No other image is reused: labels do not
    /// identify one, as an image built from one of ours inherits them.
    pub recorded: HashMap<String, String>,
}

/// The result of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// `sha256:…`.
    pub image_id: String,
    /// A digest of everything that went into it.
    pub cache_key: String,
    /// Whether an image of the same content and settings existed, so that nothing was built.
    pub cached: bool,
}

/// How many lines of the log are part of the error of a build that timed out.
const TAIL: usize = 20;

/// Builds the image, or finds it, and tags it. Repeating the call gives the same result, even after the
/// agent was killed midway. `cancel` and the timeout end the build on the engine too.
pub async fn image(
    engine: &Engine,
    request: &Request<'_>,
    log: &Log,
    cancel: &CancellationToken,
) -> Result<Built, BuildError> {
    let limit = request.settings.timeout;
    let built = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(BuildError::Cancelled),
        built = tokio::time::timeout(limit, run(engine, request, log)) => built,
    };
    built.unwrap_or_else(|_| {
        Err(BuildError::TimedOut {
            after: limit,
            log_tail: log.tail(TAIL),
        })
    })
}

async fn run(engine: &Engine, request: &Request<'_>, log: &Log) -> Result<Built, BuildError> {
    let context = read(request).await?;
    let key = cache_key(request.app, &context, request.settings);
    if !request.no_cache
        && let Some(image_id) = request.recorded.get(&key).cloned()
        && engine.tag_image(&image_id, &request.tags).await?
    {
        log.line("nothing that goes into the image has changed: reusing the existing image");
        return Ok(Built {
            image_id,
            cache_key: key,
            cached: true,
        });
    }
    let image_id = build(engine, request, context, log).await?;
    if !engine.tag_image(&image_id, &request.tags).await? {
        return Err(BuildError::Gone(image_id));
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
    // The timeout and a cancellation drop this future, not the thread.
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let read = move || Context::read_until(&stop, &mirror, &commit, &settings);
    tokio::task::spawn_blocking(read)
        .await
        .expect("reading a context does not panic")
}

async fn build(
    engine: &Engine,
    request: &Request<'_>,
    context: Context,
    log: &Log,
) -> Result<String, BuildError> {
    let (entries, kib) = (context.entries(), context.size().div_ceil(1024));
    log.line(&format!(
        "sending {entries} files and folders, {kib} KiB, to the builder"
    ));
    let dockerfile = context.dockerfile.clone();
    let spec = BuildSpec {
        dockerfile: &dockerfile,
        // This build's own tag keeps the image if the agent dies before the other tags are set.
        name: request.tags.last().map(String::as_str).unwrap_or_default(),
        args: &request.settings.args,
        labels: &request.labels,
        no_cache: request.no_cache,
        timeout: request.settings.timeout,
    };
    let (body, sending) = send::send(context);
    let built = engine.build(&spec, body, log).await;
    if built.is_err()
        && let Ok(Err(error @ BuildError::Source(_))) = sending.await
    {
        return Err(error);
    }
    Ok(built?)
}
