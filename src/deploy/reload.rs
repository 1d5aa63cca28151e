//! Reloads deploy.toml while the agent runs: the whole file is checked, the changes are reported and
//! then applied. The database is updated first, in one transaction; if the agent is killed at any
//! moment, the next start reads the same file and does the same.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::checkpoint::Checkpoint;
use super::vault::Vault;
use super::{Agent, InForce, Result, output, removal, routes, secrets};
use crate::config::changes::{self, Applies, Change};
use crate::config::{self, Config, Loaded, Problems};
use crate::ids::AppName;
use crate::principal::Requester;
use crate::source;
use crate::store::{StoreError, actions, app_names, statuses};

/// How long the response waits for the proxy to take the new routes.
const PUBLISHED: Duration = Duration::from_secs(10);

/// What a reload did, or would do.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Reload {
    /// The file that was read.
    #[schema(example = "/etc/cutover/deploy.toml")]
    pub file: String,
    /// Whether the changes are in force now; false for a dry run.
    pub applied: bool,
    /// Each key whose value differs from what the agent had loaded; values are not shown.
    pub changes: Vec<Change>,
    /// Apps that were renamed; all their data was carried over.
    pub renamed: Vec<Rename>,
    /// Apps that are no longer in the file; their live releases keep serving until the apps are removed.
    pub left: Vec<String>,
    /// Keys whose new value takes effect only when the agent and its proxy are restarted.
    pub needs_restart: Vec<String>,
    /// What is allowed but probably not intended.
    pub warnings: Vec<String>,
}

/// An app that had another name before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Rename {
    #[schema(example = "hello")]
    pub from: String,
    #[schema(example = "greeter")]
    pub to: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Nothing was changed.
    #[error(transparent)]
    Wrong(#[from] Problems),
    /// Nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the reload was interrupted; the next start completes it")]
    Interrupted,
}

/// Reads the agent's file again and, unless it is a `dry_run`, applies it. Runs to its end even if
/// nobody waits for it any more.
pub async fn reload(
    agent: &Arc<Agent>,
    dry_run: bool,
    by: Requester,
) -> std::result::Result<Reload, ReloadError> {
    let agent = agent.clone();
    let done = tokio::spawn(async move {
        let _turn = agent.changing.lock().await;
        let before = agent.in_force();
        let path = before.loaded.path.clone();
        let read = tokio::task::spawn_blocking(move || {
            let loaded = Loaded::read(&path)?;
            let warnings = config::warnings(&loaded.config);
            Ok::<_, Problems>((loaded, warnings))
        });
        let (loaded, warnings) = read.await.map_err(|_| ReloadError::Interrupted)??;
        let mut reload = shown(&agent, &loaded, warnings).await?;
        if !dry_run {
            let keys: Vec<_> = reload.changes.iter().map(|it| it.key.clone()).collect();
            let values = changes::values(&before.loaded.text, &loaded.text);
            let hash = |text: &str| hex::encode(Sha256::digest(text));
            let file = serde_json::json!({
                "before": hash(&before.loaded.text),
                "after": hash(&loaded.text),
            });
            let detail = serde_json::json!({ "changes": keys, "values": values, "file": file });
            let record =
                move |db: &_| actions::insert(db, actions::Kind::Reload, None, &detail, &by);
            agent.store.write(record).await?;
            take_over(&agent, &before, loaded, &mut reload).await?;
        }
        Ok(reload)
    });
    done.await.map_err(|_| ReloadError::Interrupted)?
}

async fn shown(agent: &Agent, loaded: &Loaded, warnings: Vec<String>) -> Result<Reload> {
    let before = agent.in_force();
    let config = loaded.config.clone();
    let (renamed, left) = agent
        .store
        .read(move |db| {
            let mut renamed = Vec::new();
            for (from, to) in renames(&config) {
                if app_names::can_rename(db, &from, &to)? {
                    renamed.push((from, to));
                }
            }
            let is_left = |name: &AppName| {
                !config.apps.contains_key(name) && !renamed.iter().any(|(from, _)| from == name)
            };
            let left: Vec<_> = app_names::in_use(db)?.into_iter().filter(is_left).collect();
            Ok((renamed, left))
        })
        .await?;
    let restart = changes::waiting_for_restart(&agent.started_with, &loaded.text);
    Ok(Reload {
        file: loaded.path.display().to_string(),
        applied: false,
        changes: changes::changes(&before.loaded.text, &loaded.text),
        renamed: renamed.into_iter().map(Rename::from).collect(),
        left: left.into_iter().map(String::from).collect(),
        needs_restart: restart.into_iter().map(|change| change.key).collect(),
        warnings,
    })
}

impl From<(AppName, AppName)> for Rename {
    fn from((from, to): (AppName, AppName)) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
        }
    }
}

async fn take_over(
    agent: &Arc<Agent>,
    before: &InForce,
    loaded: Loaded,
    reload: &mut Reload,
) -> std::result::Result<(), ReloadError> {
    let keeps = before.config.clone();
    let read = tokio::task::spawn_blocking(move || InForce::of(loaded).after(&keeps));
    let next = read.await.map_err(|_| ReloadError::Interrupted)?;
    // The worker of an app that is renamed or no longer in the file stops first, so that nothing is
    // written under a name that no longer exists. The workers started below continue what it leaves.
    let leaves = before.config.apps.keys();
    let leaves = leaves.filter(|name| !next.config.apps.contains_key(*name));
    let renamed = reload.renamed.iter().flat_map(|it| [&it.from, &it.to]);
    let renamed = renamed.filter_map(|name| name.parse().ok());
    for name in leaves.cloned().chain(renamed) {
        agent.workers.end(&name).await;
    }
    Checkpoint::Reloading.reach();
    if let Err(error) = record(agent, &next).await {
        start_workers(agent).await;
        return Err(error.into());
    }
    Checkpoint::Reloaded.reach();
    *agent.in_force.write() = Arc::new(next);
    agent.scheduling.notify_one();
    reload.applied = true;
    agent.hub.changed();
    agent.certifying.notify_one();
    start_workers(agent).await;
    let published = timeout(PUBLISHED, routes::publish_anew(agent)).await;
    let why = match published {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the proxy did not answer in time".into(),
    };
    // The proxy gets the newest table when it is back.
    let warning = format!("failed to publish the routes, will retry: {why}");
    tracing::error!("{warning}");
    reload.warnings.push(warning);
    Ok(())
}

/// Runs at the agent's start, before anything is published: records what the file says now.
pub async fn begin(agent: &Arc<Agent>) -> Result<()> {
    record(agent, &agent.in_force()).await
}

/// Starts a worker for each app that needs one and has none: those in the file, and those no longer in
/// it that still have something to do.
pub async fn start_workers(agent: &Arc<Agent>) {
    for name in agent.in_force().config.apps.keys() {
        agent.workers.start(agent, name);
    }
    match agent.store.read(app_names::in_use).await {
        Ok(in_use) => in_use
            .iter()
            .for_each(|name| agent.workers.start(agent, name)),
        Err(error) => {
            tracing::error!(%error, "failed to look for apps that are no longer in deploy.toml")
        }
    }
}

/// Completes the removals that the previous agent began.
pub async fn complete_removals(agent: Arc<Agent>) {
    let _turn = agent.changing.lock().await;
    match agent.store.read(app_names::being_removed).await {
        Ok(all) => {
            for (name, volumes) in all {
                removal::complete(&agent, &name, volumes).await;
            }
        }
        Err(error) => tracing::error!(%error, "failed to look for removals to complete"),
    }
}

/// Records everything that the database has to know about the file, in one transaction.
async fn record(agent: &Agent, next: &InForce) -> Result<()> {
    let names: Vec<AppName> = next.config.apps.keys().cloned().collect();
    let all = next.forwarding.apps();
    let routes: Vec<(AppName, String)> = all
        .filter_map(|(name, route)| Some((name.clone(), serde_json::to_string(route).ok()?)))
        .collect();
    let renames: Vec<_> = renames(&next.config).collect();
    let telling = telling(&next.config);
    let data_dir = next.config.agent.data_dir.clone();
    let _key = agent.vault.read().await;
    let vault = tokio::task::spawn_blocking(move || Vault::open(&data_dir).ok());
    let vault = vault.await.map_err(|_| StoreError::Stopped)?;
    let mirrors = next.config.agent.data_dir.join("repos");
    let renamed = agent.store.write(move |db| {
        let mut renamed = Vec::new();
        for (from, to) in renames {
            if app_names::can_rename(db, &from, &to)? {
                app_names::rename(db, &from, &to)?;
                if let Some(vault) = &vault {
                    secrets::rename(db, vault, &from, &to)?;
                }
                renamed.push((from, to));
            }
        }
        for (name, route) in &routes {
            app_names::set_route(db, name, route)?;
        }
        let routed = |name: &&AppName| routes.iter().any(|(routed, _)| routed == *name);
        for name in names.iter().filter(|name| !routed(name)) {
            app_names::clear_route(db, name)?;
        }
        app_names::set_configured(db, &names)?;
        statuses::set_reporting(db, &telling)?;
        Ok(renamed)
    });
    for (from, to) in renamed.await? {
        tracing::info!(%from, %to, "carried the data of an app over to its new name");
        // Only an optimization: a missing mirror is fetched again.
        output::rename(agent, &from, &to).await;
        let [from, to] = [from, to].map(|name| mirrors.join(format!("{name}.git")));
        let _ = tokio::task::spawn_blocking(move || source::rename_mirror(&from, &to)).await;
    }
    Ok(())
}

fn renames(config: &Config) -> impl Iterator<Item = (AppName, AppName)> + '_ {
    let apps = config.apps.values();
    apps.filter_map(|app| Some((app.was.clone()?, app.name.clone())))
}

/// Which apps report to a forge, and whether they maintain the forge's own deployments too.
fn telling(config: &Config) -> Vec<(AppName, bool)> {
    let apps = config.apps.values().filter_map(|app| {
        let report = app.report.as_ref()?;
        let deployments = report.deployments && report.address.forge.has_deployments();
        Some((app.name.clone(), deployments))
    });
    apps.collect()
}

impl Reload {
    /// Whether any change takes effect only with the next deployment of its app.
    pub fn waits_for_deployments(&self) -> bool {
        let mut changes = self.changes.iter();
        changes.any(|change| change.applies == Applies::NextDeployment)
    }
}
