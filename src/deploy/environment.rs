//! What a container gets besides its image: variables, secrets and volumes. All of it is looked up
//! whenever a container is made, so that no value that deploy.toml only refers to is ever stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::line::Stop;
use super::networks::{self, NetworksError};
use super::secrets::SecretsError;
use super::{Agent, InForce, secret_files};
use crate::config::{self, Secret};
use crate::engine::{EngineError, Environment, Mount, MountSource};
use crate::ids::{AppName, ServiceName};
use crate::store::releases::Release;
use crate::store::services::Service;
use crate::store::settings::{Place, Settings, Value, VolumeSource};
use crate::store::{StoreError, deployments, named_volumes};

/// What the container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The app itself, or a command that works on its data.
    App,
    /// The app's tests, which get none of its data and secrets.
    Test,
}

/// Why a container cannot be made. Quotes no value.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// A person has to do something.
    #[error("{0}")]
    Wrong(String),
    /// A secret has to be set.
    #[error("{0}")]
    Missing(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

type Result<T> = std::result::Result<T, EnvironmentError>;

impl From<NetworksError> for EnvironmentError {
    fn from(error: NetworksError) -> Self {
        match error {
            NetworksError::Store(error) => Self::Store(error),
            NetworksError::Engine(error) => Self::Engine(error),
        }
    }
}

impl From<EnvironmentError> for Stop {
    fn from(error: EnvironmentError) -> Self {
        match error {
            EnvironmentError::Wrong(why) => Stop::failed("environment", why),
            EnvironmentError::Missing(why) => Stop::failed("missing_secret", why),
            EnvironmentError::Store(StoreError::Refused(why)) => Stop::failed("environment", why),
            EnvironmentError::Store(error) => error.into(),
            EnvironmentError::Engine(error) => error.into(),
        }
    }
}

/// Whether everything that the settings refer to is there. Changes nothing.
pub async fn check(agent: &Agent, app: &AppName, settings: &Settings) -> Result<()> {
    secrets(agent, app, settings).await?;
    granted(agent, app, settings)?;
    let (in_force, settings, app) = (agent.in_force(), settings.clone(), app.clone());
    let check = tokio::task::spawn_blocking(move || {
        let sources = settings.volumes.iter().map(|volume| &volume.source);
        for source in sources {
            if let VolumeSource::Host(path) = source {
                config::mountable(&in_force.config, &app, path).map_err(EnvironmentError::Wrong)?;
            }
        }
        variables(&settings).map(drop)
    });
    check.await.map_err(|_| interrupted())?
}

/// Whether the app may have what is as good as this machine: an older release may have had it.
fn granted(agent: &Agent, app: &AppName, settings: &Settings) -> Result<()> {
    match settings.container.machine() {
        Some(key) if !agent.in_force().config.docker.allow.contains(app) => {
            Err(EnvironmentError::Wrong(format!(
                "`run.{key}` gives the app this machine, and `docker.allow` does not name `{app}`: add it there"
            )))
        }
        _ => Ok(()),
    }
}

/// What the container `name` of a service gets. Makes the volumes that are not there yet.
pub async fn of(
    agent: &Agent,
    release: &Release,
    service: &Service,
    name: &str,
    purpose: Purpose,
) -> Result<Environment> {
    granted(agent, &release.app, &service.settings)?;
    let in_force = agent.in_force();
    let settings = service.settings.clone();
    let deployment = release.deployment.clone();
    let made_by = agent
        .store
        .read(move |db| deployments::get(db, &deployment));
    let git_ref = made_by.await?.and_then(|made_by| made_by.git_ref);
    let app = agent.app(&release.app);
    let branch = app.map(|app| match app.image() {
        Some(image) => image.to_string(),
        None => format!("refs/heads/{}", app.branch),
    });
    let mut variables = identity(release, service, name, git_ref.or(branch));
    let read = settings.clone();
    let own = tokio::task::spawn_blocking(move || self::variables(&read));
    variables.extend(own.await.map_err(|_| interrupted())??);
    let mut files = BTreeMap::new();
    if purpose == Purpose::App {
        for (name, value) in secrets(agent, &release.app, &settings).await? {
            match settings.secret_files.contains(&name) {
                true => files.insert(name, value),
                false => variables.insert(name, value),
            };
        }
    }
    let linked = settings.links.clone();
    let mut mounts = match purpose {
        Purpose::App => mounts(agent, in_force, &release.app, settings).await?,
        Purpose::Test => Vec::new(),
    };
    if !files.is_empty() {
        mounts.push(secret_files(agent, name, files).await?);
    }
    let hosts = match purpose {
        Purpose::App => networks::hosts(agent, &release.app, &linked).await?,
        Purpose::Test => BTreeMap::new(),
    };
    Ok(Environment {
        variables,
        mounts,
        hosts,
    })
}

/// What a container gets that a test needs: its own variables, and nothing of the app.
pub async fn of_need(
    name: &ServiceName,
    env: &BTreeMap<String, config::Value>,
) -> Result<Environment> {
    let (need, env) = (name.clone(), env.clone());
    let read = tokio::task::spawn_blocking(move || {
        let values = env.into_iter().map(|(name, value)| match value {
            config::Value::Text(text) => Ok((name, text)),
            config::Value::From(secret) => match self::value(&secret) {
                Ok(value) => Ok((name, value)),
                Err(why) => Err(EnvironmentError::Wrong(format!(
                    "`test.needs.{need}.env.{name}`: {why}"
                ))),
            },
        });
        values.collect::<Result<_>>()
    });
    Ok(Environment {
        variables: read.await.map_err(|_| interrupted())??,
        ..Environment::default()
    })
}

/// What Cutover itself tells an app. A variable of the same name in deploy.toml takes precedence.
fn identity(
    release: &Release,
    service: &Service,
    name: &str,
    git_ref: Option<String>,
) -> BTreeMap<String, String> {
    let commit = release.commit.as_str();
    let mut all = BTreeMap::from([
        ("CUTOVER_APP".to_owned(), release.app.to_string()),
        ("CUTOVER_RELEASE".to_owned(), release.id.to_string()),
        ("CUTOVER_COMMIT".to_owned(), commit.to_owned()),
        ("CUTOVER_REF".to_owned(), git_ref.unwrap_or_default()),
        ("CUTOVER_INSTANCE".to_owned(), name.to_owned()),
        ("SOURCE_COMMIT".to_owned(), commit.to_owned()),
    ]);
    all.extend(
        service
            .port
            .map(|port| ("PORT".to_owned(), port.to_string())),
    );
    all
}

/// The variables of deploy.toml, and those that Cutover keeps. Blocks.
fn variables(settings: &Settings) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    if let Some(path) = &settings.env_file {
        let read = config::env_file::read(path);
        all.extend(read.map_err(|why| EnvironmentError::Wrong(format!("`run.env_file`: {why}")))?);
    }
    for (name, value) in &settings.env {
        let value = match value {
            Value::Text(text) => text.clone(),
            Value::From(place) => {
                let wrong = |why| EnvironmentError::Wrong(format!("`run.env.{name}`: {why}"));
                read(place).map_err(wrong)?
            }
        };
        all.insert(name.clone(), value);
    }
    all.extend(settings.kept.clone());
    Ok(all)
}

/// The secrets that Cutover keeps for the app, and those that deploy.toml has elsewhere.
async fn secrets(
    agent: &Agent,
    app: &AppName,
    settings: &Settings,
) -> Result<BTreeMap<String, String>> {
    let kept = super::secrets::values(agent, app).await;
    let mut all = kept.map_err(|error| match error {
        SecretsError::Store(error) => EnvironmentError::Store(error),
        other => EnvironmentError::Wrong(other.to_string()),
    })?;
    let named = settings.secrets.clone();
    let missing = named.iter().filter(|(_, place)| place.is_none());
    let missing: Vec<_> = missing
        .filter(|(name, _)| !all.contains_key(*name))
        .map(|(name, _)| name.clone())
        .collect();
    if let [first, ..] = missing.as_slice() {
        return Err(EnvironmentError::Missing(format!(
            "`run.secrets` names `{}`, which Cutover does not keep for `{app}`: run `cutover secret set \
             {app} {first}`",
            missing.join("`, `")
        )));
    }
    let read = tokio::task::spawn_blocking(move || {
        let elsewhere = named.into_iter();
        let elsewhere = elsewhere.filter_map(|(name, place)| Some((name, place?)));
        let each = elsewhere.map(|(name, place)| match read(&place) {
            Ok(value) => Ok((name, value)),
            Err(why) => Err(EnvironmentError::Wrong(format!(
                "`run.secrets.{name}`: {why}"
            ))),
        });
        each.collect::<Result<Vec<_>>>()
    });
    all.extend(read.await.map_err(|_| interrupted())??);
    Ok(all)
}

async fn secret_files(
    agent: &Agent,
    container: &str,
    files: BTreeMap<String, String>,
) -> Result<Mount> {
    let (id, container) = (agent.id.clone(), container.to_owned());
    let put = move || secret_files::put(&id, &container, &files);
    let put = tokio::task::spawn_blocking(put).await;
    let folder = put.map_err(|_| interrupted())?;
    let wrong = |error| EnvironmentError::Wrong(format!("`run.secrets`: {error}"));
    Ok(Mount {
        source: MountSource::Host(folder.map_err(wrong)?),
        target: secret_files::TARGET.to_owned(),
        read_only: true,
    })
}

pub(super) fn read(place: &Place) -> std::result::Result<String, String> {
    let secret = match place {
        Place::Env(name) => Secret::Env(name.clone()),
        Place::File(path) => Secret::File(path.clone()),
    };
    value(&secret)
}

pub(super) fn value(secret: &Secret) -> std::result::Result<String, String> {
    let value = secret.read().map_err(|error| error.to_string())?;
    let value = String::from_utf8(value).map_err(|_| "the value is not UTF-8 text")?;
    match value.contains('\0') {
        true => Err("the value contains a NUL character".to_owned()),
        false => Ok(value),
    }
}

async fn mounts(
    agent: &Agent,
    in_force: Arc<InForce>,
    app: &AppName,
    settings: Settings,
) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for volume in settings.volumes {
        let source = match volume.source {
            VolumeSource::Named(name) => {
                let of = app.clone();
                let record = move |db: &_| named_volumes::record(db, &of, &name);
                let name = agent.store.write(record).await?;
                agent.engine.make_volume(&name, app).await?;
                MountSource::Volume(name)
            }
            VolumeSource::Host(path) => {
                let in_force = in_force.clone();
                let app = app.clone();
                let found = move || config::mountable(&in_force.config, &app, &path);
                let found = tokio::task::spawn_blocking(found);
                let found = found.await.map_err(|_| interrupted())?;
                MountSource::Host(found.map_err(EnvironmentError::Wrong)?)
            }
        };
        mounts.push(Mount {
            source,
            target: volume.target,
            read_only: volume.read_only,
        });
    }
    Ok(mounts)
}

fn interrupted() -> EnvironmentError {
    EnvironmentError::Store(StoreError::Stopped)
}
