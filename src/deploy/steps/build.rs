//! Build the image, or reuse the one built from the same tree and settings; and create the release.

use std::collections::HashMap;

use crate::build::{self, BuildError, Built, Inputs};
use crate::config::{self, Command, Image, Pull};
use crate::deploy::line::{Done, Line, Stop};
use crate::deploy::steps::fetch;
use crate::deploy::vault::{Vault, VaultError};
use crate::deploy::{disk, limits, services, tend, words};
use crate::engine::{EngineError, advice};
use crate::ids::{AppName, DeploymentId, ReleaseId};
use crate::source::Commit;
use crate::store::deployments::Deployment;
use crate::store::images::Recorded;
use crate::store::provenance::Provenance;
use crate::store::releases::{self, Release};
use crate::store::{deployments, former_secrets, images, now};

/// A new release, and the Procfile's command that is to run before it gets traffic.
pub struct Made {
    pub release: Release,
    pub command: Option<Command>,
}

pub async fn build(
    line: &Line<'_>,
    commit: &Commit,
    deployment: &Deployment,
) -> Result<Done<Made>, Stop> {
    let app = line.app;
    disk::check(line).await?;
    if let Err(why) = limits::apply(line.agent).await {
        line.log.line(&format!("[build] warning: {why}"));
    }
    let wanted = services::wanted(line, commit).await?;
    let image = format!("cutover/{}:{}", app.name, commit.id.short());
    // The second tag is the deployment's own: when the same commit is built again with other settings,
    // the first tag moves, and the image that it pointed to must stay.
    let tags = vec![image.clone(), format!("cutover/{}:{}", app.name, line.id)];
    let of = app.name.clone();
    let recorded = line.agent.store.read(move |db| images::of_app(db, &of));
    let recorded = recorded.await?;
    let built = made(line, commit, deployment, &app.build, tags, recorded).await?;
    // Of an app without a repository, the commit's message is the image with its digest.
    let from = app.image().map(|_| commit.message.clone());
    let from = match &app.build.push {
        Some(name) => Some(push(line, name, commit, &built.image_id).await?),
        None => from,
    };
    keep_cache(line, &built).await;
    let provenance = provenance(line, &built).await?;
    say_volumes(line, &built.volumes);
    let how = built
        .reused
        .as_ref()
        .map(|before| format!(", the same image {}", before.built()));
    let detail = format!("{image}{}", how.unwrap_or_default());

    let release = Release {
        id: ReleaseId::new(),
        app: app.name.clone(),
        deployment: line.id.clone(),
        commit: commit.id.clone(),
        message: commit.message.clone(),
        author: commit.author.clone(),
        provenance,
        services: services::services(app, &wanted, &image, &built.image_id, from.as_deref()),
        created_at: now(),
        went_live: None,
        removed_at: None,
    };
    let (id, row, key) = (line.id.clone(), release.clone(), built.cache_key);
    let image = built.reused.unwrap_or_else(|| Recorded {
        id: built.image_id,
        deployment: Some(line.id.clone()),
    });
    let made = Made {
        release,
        command: wanted.release,
    };
    Ok(Done::new(made, detail).recording(move |db| {
        images::insert(db, &row.app, &key, &image)?;
        releases::insert(db, &row)?;
        former_secrets::record(db, &row.id)?;
        deployments::set_release(db, &id, &row.id)
    }))
}

/// Pushes the image to where deploy.toml wants it too; its name there, with its digest.
async fn push(line: &Line<'_>, name: &str, commit: &Commit, id: &str) -> Result<String, Stop> {
    let image = Image {
        name: name.to_owned(),
        tag: commit.id.short().to_owned(),
        digest: None,
    };
    line.log.line(&format!("pushing `{image}`"));
    let timeout = line.app.build.timeout;
    let pushed = tokio::time::timeout(timeout, line.agent.engine.push(id, &image)).await;
    let digest = match pushed {
        Ok(Ok(digest)) => digest,
        Ok(Err(error @ EngineError::Unreachable { .. })) => return Err(error.into()),
        Ok(Err(error)) => {
            let what = format!("{error}; {}", advice_on_push(&error, "build.push", &image));
            return Err(Stop::failed("push_failed", what));
        }
        Err(_) => {
            let what = format!("`{image}` was not pushed within `build.timeout`, {timeout:?}");
            return Err(Stop::failed("push_failed", what));
        }
    };
    let image = Image {
        digest: Some(digest),
        ..image
    };
    line.log.line(&format!("pushed `{image}`"));
    Ok(image.to_string())
}

/// Pushes what was built now for the builds of other machines. Without it they take longer, and that is all.
async fn keep_cache(line: &Line<'_>, built: &Built) {
    let Some(image) = &line.app.build.cache_to else {
        return;
    };
    if built.reused.is_some() {
        return;
    }
    let timeout = line.app.build.timeout;
    let pushed = tokio::time::timeout(timeout, line.agent.engine.push(&built.image_id, image));
    let said = match pushed.await {
        Ok(Ok(_)) => format!("pushed the build cache to `{image}`"),
        Ok(Err(error)) => format!(
            "[build] warning: the build cache is not pushed: {error}; {}",
            advice_on_push(&error, "build.cache_to", image)
        ),
        Err(_) => format!(
            "[build] warning: the build cache was not pushed to `{image}` within `build.timeout`, {timeout:?}"
        ),
    };
    line.log.line(&said);
}

fn advice_on_push(error: &EngineError, key: &str, image: &Image) -> String {
    advice::of_refusal(error).map_or_else(
        || {
            format!(
                "check `{key}`, and that the agent's user has a login to `{}` that may push (`docker login`)",
                image.registry()
            )
        },
        str::to_owned,
    )
}

/// Where the image comes from; of one that was built before, as it was recorded then.
async fn provenance(line: &Line<'_>, built: &Built) -> Result<Option<Provenance>, Stop> {
    let Some(before) = &built.reused else {
        return Ok(Some(Provenance {
            built_by: line.id.to_string(),
            ..built.provenance.clone()
        }));
    };
    let Some(by) = before.deployment.clone() else {
        return Ok(None);
    };
    let read = line
        .agent
        .store
        .read(move |db| releases::provenance(db, &by));
    Ok(read.await?)
}

/// Another stage of the same Dockerfile, with the same inputs; its id. Its only name is
/// [`name_of_stage`]. Its steps run each time, but for those that the builder has cached.
pub async fn stage(
    line: &Line<'_>,
    commit: &Commit,
    deployment: &Deployment,
    target: &str,
) -> Result<String, Stop> {
    let settings = config::Build {
        target: Some(target.to_owned()),
        ..line.app.build.clone()
    };
    let tags = vec![name_of_stage(&line.app.name, &line.id)];
    let built = made(line, commit, deployment, &settings, tags, HashMap::new()).await?;
    Ok(built.image_id)
}

pub fn name_of_stage(app: &AppName, id: &DeploymentId) -> String {
    format!("cutover/{app}:{id}-test")
}

async fn made(
    line: &Line<'_>,
    commit: &Commit,
    deployment: &Deployment,
    settings: &config::Build,
    tags: Vec<String>,
    recorded: HashMap<String, Recorded>,
) -> Result<Built, Stop> {
    let (app, engine) = (line.app, &line.agent.engine);
    let mirror = fetch::mirror(line);
    let inputs = match inputs(line).await? {
        Ok(inputs) => inputs,
        Err(error) => return Err(stopped(line, error).await),
    };
    let branch = deployment.git_ref.as_deref().map(words::short_ref);
    let request = build::Request {
        app: &app.name,
        commit,
        from: app.image().map(|_| commit.message.as_str()),
        settings,
        inputs: &inputs,
        branch: branch.unwrap_or(&app.branch),
        git_ref: deployment.git_ref.as_deref().unwrap_or_default(),
        mirror: &mirror,
        tags,
        labels: engine.image_labels(&app.name),
        no_cache: deployment.no_cache,
        pull: match deployment.pull {
            true => Pull::Always,
            false => settings.pull,
        },
        recorded,
    };
    match build::image(engine, &request, &line.log, &line.cancel).await {
        Ok(built) => Ok(built),
        Err(error) => Err(stopped(line, error).await),
    }
}

/// Reads the arguments and secrets of the build.
async fn inputs(line: &Line<'_>) -> Result<Result<Inputs, BuildError>, Stop> {
    let settings = line.app.build.clone();
    let data_dir = line.agent.in_force().config.agent.data_dir.clone();
    let read = tokio::task::spawn_blocking(move || {
        if settings.secrets.is_empty() {
            return Ok(Inputs::read(&settings, |_, _| String::new()));
        }
        let vault = Vault::open_or_make(&data_dir)?;
        Ok(Inputs::read(&settings, |id, value| {
            vault.version(id, value)
        }))
    });
    let read = read
        .await
        .map_err(|_| Stop::Interrupted("reading the build's secrets was interrupted".into()))?;
    read.map_err(|error: VaultError| Stop::failed("secrets_key", error.to_string()))
}

/// What an app writes to a volume that its image declares is not there any more after the next
/// deployment, which surprises whoever kept a database in it.
fn say_volumes(line: &Line<'_>, declared: &[String]) {
    let mounted = &line.app.run.volumes;
    for path in declared {
        if mounted
            .iter()
            .any(|it| it.target == path.trim_end_matches('/'))
        {
            continue;
        }
        line.log
            .line(&format!("[build] warning: {}", tend::volume(path)));
    }
}

/// A build that failed because Docker became unreachable is not the commit's fault.
async fn stopped(line: &Line<'_>, error: BuildError) -> Stop {
    match &error {
        BuildError::Cancelled => Stop::Cancelled,
        _ if line.agent.engine.ping().await.is_err() => Stop::Interrupted(error.to_string()),
        _ => Stop::failed(error.code(), format!("{error}; {}", error.hint()))
            .with_tail(error.log_tail().to_vec()),
    }
}
