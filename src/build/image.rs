//! Builds the image of a commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::advice::is_of_full_disk;
use super::arguments::Arguments;
use super::cache_key::cache_key;
use super::command::Program;
use super::resolved::{Base, caches, resolved};
use super::ssh::Agents;
use super::{BuildError, Context, Request, bases, command, contexts, frontend};
use crate::config::{Image, Pull};
use crate::engine::{BuildFailure, BuildSpec, BuiltImage, Engine};
use crate::source::Fetching;
use crate::store::images::Recorded;
use crate::store::log::Log;
use crate::store::provenance::{self, Provenance};

/// The result of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// `sha256:…`.
    pub image_id: String,
    /// A digest of everything that went into it.
    pub cache_key: String,
    /// The record of the image that was built before from the same content and settings: nothing had
    /// to be built.
    pub reused: Option<Recorded>,
    /// The paths of the volumes that the image declares.
    pub volumes: Vec<String>,
    /// Of what was built now.
    pub provenance: Provenance,
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
    let mut context = read(request, log).await?;
    let dockerfile = String::from_utf8_lossy(&context.dockerfile.text).into_owned();
    let inputs = request.inputs;
    let args = request.args(&dockerfile);
    let frontends = frontend::check(&mut context.dockerfile, &args, request.settings, log)?;
    let settings = request.settings;
    let own = match engine.platform().await {
        Err(error) if request.pull == Pull::Never => return Err(error.into()),
        // One that is too busy to say it builds all the same.
        said => said.unwrap_or_default(),
    };
    let arguments = Arguments::new(&args, own.as_deref(), settings.platform.as_deref());
    let named = contexts::without_folders(&dockerfile, &arguments, settings);
    let bases = bases::bases(&named, &arguments, settings.target.as_deref());
    let bases = resolved(engine, request, bases, &frontends, log).await?;
    let key = cache_key(
        request.app,
        &context,
        request.settings,
        &args,
        &inputs.secrets,
        &bases,
    );
    if !request.no_cache
        && let Some(recorded) = request.recorded.get(&key)
        && let Some(volumes) = engine.tag_image(&recorded.id, &request.tags).await?
    {
        log.line(&format!(
            "nothing that goes into the image has changed: reusing the one {}",
            recorded.built()
        ));
        return Ok(Built {
            image_id: recorded.id.clone(),
            cache_key: key,
            reused: Some(recorded.clone()),
            volumes,
            provenance: Provenance::default(),
        });
    }
    let (mut context, left) = match &request.settings.command {
        Some(argv) => {
            let (context, left) =
                command::run(engine, &program(request, argv), context, log).await?;
            (context, Some(left))
        }
        None => (context, None),
    };
    let mut provenance = origin(request, &context, &args);
    let made = contexts::make(engine, request, &mut context, &arguments, &bases, log).await?;
    // Those of the folders are in no registry, nor is what a program has left.
    let pull =
        request.pull == Pull::Always && request.settings.command.is_none() && made.is_empty();
    let own = request.tags.last().map_or("", String::as_str);
    let interrupted = engine.image_id(own).await?;
    let built = build(engine, request, context, &args, pull, log).await;
    made.remove(engine).await;
    let BuiltImage {
        id: image_id,
        from,
        attestation,
    } = built?;
    provenance.bases = based(&bases, &from);
    provenance.attestation = attestation;
    if let Some(name) = left.as_ref().and_then(|left| left.image.as_ref())
        && let Some(id) = engine.image_id(name).await?
    {
        engine.untag_image(&id, name).await?;
    }
    let Some(volumes) = engine.tag_image(&image_id, &request.tags).await? else {
        return Err(BuildError::Gone(image_id));
    };
    // An earlier attempt may have built the same with other times in it: its image has no name any more, unless it is
    // an earlier deployment's too.
    if let Some(before) = interrupted.filter(|before| *before != image_id)
        && let Err(error) = engine.remove_unnamed_image(&before).await
    {
        tracing::debug!(image = before, %error, "failed to remove the image of an interrupted attempt");
    }
    Ok(Built {
        image_id,
        cache_key: key,
        reused: None,
        volumes,
        provenance,
    })
}

fn program<'a>(request: &'a Request<'_>, argv: &'a [String]) -> Program<'a> {
    let own = request.tags.last().map_or("", String::as_str);
    Program {
        argv,
        image: format!("{own}-build"),
        folder: command::folder(request.mirror),
        commit: &request.commit.id,
        own_args: request.own_args(),
        args: &request.inputs.args,
        site: request.settings.site.as_ref(),
    }
}

/// What is built from what; the base images are known only afterwards.
fn origin(request: &Request<'_>, context: &Context, args: &BTreeMap<String, String>) -> Provenance {
    let settings = request.settings;
    let own = request.from.is_none() && settings.site.is_none() && settings.command.is_none();
    let dockerfile = &context.dockerfile;
    Provenance {
        built_by: String::new(),
        source: request
            .from
            .map_or_else(|| request.mirror.shown(), str::to_owned),
        dockerfile: own.then(|| dockerfile.named.clone()),
        dockerfile_id: own.then(|| dockerfile.id.to_string()),
        command: settings.command.as_ref().map(|argv| argv.join(" ")),
        target: settings.target.clone(),
        args: args.keys().cloned().collect(),
        secrets: request.inputs.secrets.keys().cloned().collect(),
        bases: Vec::new(),
        attestation: None,
    }
}

/// The base images by their names in the Dockerfile, with the digests that the builder resolved (`from`,
/// `docker.io/library/node:22@sha256:…`).
fn based(bases: &[Base], from: &[String]) -> Vec<provenance::Base> {
    let mut all: Vec<_> = from
        .iter()
        .filter_map(|whole| {
            let (name, digest) = whole.split_once('@')?;
            Some(provenance::Base {
                name: name.to_owned(),
                digest: Some(digest.to_owned()),
                image_id: None,
            })
        })
        .collect();
    for base in bases.iter().filter(|base| !base.name.is_empty()) {
        let known = base
            .name
            .parse::<Image>()
            .ok()
            .map(|image| image.canonical());
        let known = all.iter_mut().find(|it| known.as_ref() == Some(&it.name));
        match known {
            Some(known) => known.image_id.clone_from(&base.id),
            None => all.push(provenance::Base {
                name: base.name.clone(),
                digest: base.digest.clone(),
                image_id: base.id.clone(),
            }),
        }
    }
    all
}

async fn read(request: &Request<'_>, log: &Log) -> Result<Context, BuildError> {
    if let Some(image) = request.from {
        return Ok(Context::of_image(image));
    }
    let mirror = request.mirror.clone();
    let commit = request.commit.clone();
    let settings = request.settings.clone();
    let log = log.clone();
    // The timeout and a cancellation drop this future, not the thread.
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let read = move || {
        let fetching = Fetching {
            log: &|text| log.line(text),
            cancel: &stop,
            deadline: Instant::now() + settings.timeout,
        };
        Context::read(&mirror, &commit, &settings, &fetching)
    };
    tokio::task::spawn_blocking(read)
        .await
        .expect("reading a context does not panic")
}

/// The image that lists what the new one contains, where that can be kept.
async fn scanner(engine: &Engine, sbom: Option<&Image>, log: &Log) -> Option<String> {
    let image = sbom?.to_string();
    // An engine that does not answer does not build either.
    if engine.keeps_attestations().await.unwrap_or(true) {
        return Some(image);
    }
    log.line(
        "[build] warning: `build.sbom` does nothing here: Docker keeps such lists only with containerd's image store \
         (`\"features\": { \"containerd-snapshotter\": true }` in /etc/docker/daemon.json; the images and containers of the \
         present store are not visible in it)",
    );
    None
}

async fn build(
    engine: &Engine,
    request: &Request<'_>,
    context: Context,
    args: &BTreeMap<String, String>,
    pull: bool,
    log: &Log,
) -> Result<BuiltImage, BuildError> {
    if context.entries() > 0 {
        log.line(&format!("build context: {}", context.extent()));
    }
    let settings = request.settings;
    let secrets = request.inputs.secrets.iter();
    let shared_key = request.shared_key(&context_of(request));
    let named = context.dockerfile.named.clone();
    let agents = Agents::start(&settings.ssh, request.mirror.more().join("ssh")).await?;
    let labels = request.image_labels(&String::from_utf8_lossy(&context.dockerfile.text));
    let spec = BuildSpec {
        dockerfile: &named,
        shared_key: &shared_key,
        // This build's own tag keeps the image if the agent dies before the other tags are set.
        name: request.tags.last().map(String::as_str).unwrap_or_default(),
        args,
        labels: &labels,
        target: settings.target.as_deref(),
        platform: settings.platform.as_deref(),
        network: settings.network.as_deref(),
        extra_hosts: &settings.extra_hosts,
        shm_size: settings.shm_size,
        secrets: secrets
            .map(|(id, secret)| (id.clone(), secret.value.clone()))
            .collect(),
        ssh: agents.sockets.clone(),
        cache_from: caches(engine, &settings.cache_from, log).await,
        keeps_cache: settings.cache_to.is_some(),
        attests: true,
        scanner: scanner(engine, settings.sbom.as_ref(), log).await,
        no_cache: request.no_cache,
        pull,
    };
    let here_documents = context.dockerfile.text.windows(2).any(|it| it == b"<<");
    let dockerfile = Arc::new(Mutex::new(context.dockerfile_folder()));
    let context = Arc::new(Mutex::new(context));
    let begun = OffsetDateTime::now_utc();
    let built = engine
        .build(&spec, dockerfile, context.clone(), Some(log))
        .await;
    if let Err(failure) = &built
        && is_full(failure)
    {
        make_room(engine, begun, log).await;
    }
    if built.is_err()
        && let Some(error @ BuildError::Source(_)) = context.lock().failed.take()
    {
        return Err(error);
    }
    match built {
        // An engine that does not know them takes their lines for instructions.
        Err(BuildFailure::Step {
            step,
            message,
            log_tail,
        }) if here_documents && message.contains("unknown instruction") => {
            let message = format!("{message} (after a here-document, `<<`)");
            Err(BuildError::Failed {
                step,
                message,
                log_tail,
            })
        }
        built => Ok(built?),
    }
}

fn is_full(failure: &BuildFailure) -> bool {
    match failure {
        BuildFailure::Step { message, .. } => is_of_full_disk(message),
        BuildFailure::Engine(error) => is_of_full_disk(&error.to_string()),
    }
}

/// The steps before the one that filled the disk are cached: until somebody removes that, nothing can be written.
async fn make_room(engine: &Engine, since: OffsetDateTime, log: &Log) {
    match engine.forget_build_cache(since).await {
        Ok(0) => {}
        Ok(freed) => log.line(&format!(
            "[build] the disk of Docker became full: what the build cache has grown by meanwhile is removed, {} MiB",
            freed >> 20
        )),
        Err(error) => {
            tracing::warn!(%error, "failed to remove the cache of a build that filled the disk")
        }
    }
}

fn context_of(request: &Request<'_>) -> String {
    match &request.settings.site {
        Some(site) => format!("site {}", site.dir),
        None => request.settings.context.clone(),
    }
}
