//! Secrets that Cutover keeps for an app. A change is stored in one transaction with the deployment that
//! brings it to the app: a new release of the live one's image, without a build.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::vault::{self, Vault, VaultError};
use super::{Agent, intake, words};
use crate::config::{self, env_file};
use crate::ids::AppName;
use crate::principal::Requester;
use crate::store::deployments::{Deployment, Trigger};
use crate::store::{StoreError, actions, former_secrets, secrets};

/// The most secrets of one app, and the longest value in bytes: Linux takes no variable above 128 KiB.
const MOST: usize = 500;
const LONGEST: usize = 60 << 10;

/// What to change. Not `Debug`, so that no value can be logged.
pub struct Change {
    pub set: BTreeMap<String, String>,
    pub unset: Vec<String>,
    /// Whether to deploy the live release again, if there is one.
    pub deploy: bool,
}

/// What a change did.
pub struct Changed {
    /// How many secrets have another value than before, or none.
    pub changed: usize,
    /// The deployment that brings the change to the app.
    pub deployment: Option<Deployment>,
}

/// Quotes no value.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error("{0}")]
    Wrong(String),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Result<T> = std::result::Result<T, SecretsError>;

/// Stores all of the change, or nothing.
pub async fn change(
    agent: &Agent,
    app: &AppName,
    change: Change,
    trigger: Trigger,
    by: Requester,
) -> Result<Changed> {
    check(&change)?;
    let _key = agent.vault.read().await;
    let (of, data_dir) = (app.clone(), agent.in_force().config.agent.data_dir.clone());
    let any = agent.store.read(secrets::any).await?;
    let opened = tokio::task::spawn_blocking(move || match any {
        // A new key beside values that another one has sealed would hide that the other is lost.
        true => Vault::open(&data_dir),
        false => Vault::open_or_make(&data_dir),
    });
    let vault = match opened.await.map_err(|_| StoreError::Stopped)? {
        Ok(vault) => Some(vault),
        // To forget a secret needs no key.
        Err(_) if change.set.is_empty() => None,
        Err(error) => return Err(error.into()),
    };
    let write = agent.store.write(move |db| {
        let names: Vec<_> = change.set.keys().collect();
        let detail = serde_json::json!({ "set": names, "unset": change.unset });
        actions::insert(db, actions::Kind::Secrets, Some(&of), &detail, &by)?;
        let changed = store(db, &of, &change, vault.as_ref(), &by)?;
        let deployment = match changed > 0 && change.deploy {
            true => intake::again(db, &of, trigger, by)?,
            false => None,
        };
        Ok(Changed {
            changed,
            deployment,
        })
    });
    let changed = write.await?;
    tracing::info!(%app, changed = changed.changed, "secrets were changed");
    if let Some(queued) = &changed.deployment {
        intake::announce(agent, queued);
    }
    Ok(changed)
}

fn check(change: &Change) -> Result<()> {
    let wrong = |why: String| Err(SecretsError::Wrong(why));
    for (name, value) in &change.set {
        if !env_file::is_name(name) {
            return wrong(format!(
                "`{}` is not a secret's name: expected letters, digits and `_`, no digit first",
                name.escape_debug()
            ));
        }
        if env_file::is_reserved(name) {
            return wrong(format!(
                "`{name}` cannot be a secret: Cutover sets it itself"
            ));
        }
        if value.is_empty() {
            return wrong(format!(
                "the value of `{name}` is empty: unset it to remove it"
            ));
        }
        if value.contains('\0') {
            return wrong(format!("the value of `{name}` contains a NUL character"));
        }
        if value.len() > LONGEST {
            return wrong(format!("the value of `{name}` is longer than 60 KiB"));
        }
        if change.unset.contains(name) {
            return wrong(format!("`{name}` cannot be set and unset at once"));
        }
    }
    Ok(())
}

fn store(
    db: &Connection,
    app: &AppName,
    change: &Change,
    vault: Option<&Vault>,
    by: &Requester,
) -> super::Result<usize> {
    let mut changed = 0;
    for name in &change.unset {
        if !secrets::unset(db, app, name)? {
            let name = name.escape_debug();
            let why = format!("`{app}` has no secret `{name}`: nothing was changed");
            return Err(StoreError::Refused(why));
        }
        changed += 1;
    }
    let before = secrets::of_app(db, app)?;
    for (name, value) in &change.set {
        let Some(vault) = vault else { continue };
        let known = before.iter().find(|known| known.name == *name);
        let known = known.and_then(|known| vault.unseal(app, name, &known.sealed).ok());
        if known.as_ref() != Some(value) {
            secrets::set(db, app, name, &vault.seal(app, name, value), by)?;
            changed += 1;
        }
    }
    match secrets::of_app(db, app)?.len() {
        ..=MOST => Ok(changed),
        _ => Err(StoreError::Refused(format!(
            "an app can have {MOST} secrets: nothing was changed"
        ))),
    }
}

/// The values of an app's secrets, by name.
pub async fn values(agent: &Agent, app: &AppName) -> Result<BTreeMap<String, String>> {
    let of = app.clone();
    let _key = agent.vault.read().await;
    let all = agent.store.read(move |db| secrets::of_app(db, &of)).await?;
    if all.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (of, data_dir) = (app.clone(), agent.in_force().config.agent.data_dir.clone());
    let read = tokio::task::spawn_blocking(move || {
        let vault = Vault::open(&data_dir)?;
        let each = all.into_iter().map(|secret| {
            let value = vault.unseal(&of, &secret.name, &secret.sealed)?;
            Ok((secret.name, value))
        });
        each.collect::<std::result::Result<_, VaultError>>()
    });
    Ok(read.await.map_err(|_| StoreError::Stopped)??)
}

/// Whether the stored secrets can be used, and those that apps need are there: a sentence for each thing that
/// is wrong, with what to do.
pub async fn problems(agent: &Agent) -> super::Result<Vec<String>> {
    let mut all = missing(agent).await?;
    all.extend(unusable(agent).await?);
    Ok(all)
}

/// What deploy.toml says that Cutover keeps, and does not.
async fn missing(agent: &Agent) -> super::Result<Vec<String>> {
    let in_force = agent.in_force();
    let read = agent.store.read(move |db| {
        let mut all = Vec::new();
        for (app, configured) in &in_force.config.apps {
            let kept = secrets::of_app(db, app)?.into_iter();
            let kept: Vec<_> = kept.map(|it| it.name).collect();
            let missing = configured.run.missing(kept.iter().map(String::as_str));
            all.extend(missing.iter().map(|name| config::not_kept(app, name)));
        }
        Ok(all)
    });
    read.await
}

/// Names no secret.
async fn unusable(agent: &Agent) -> super::Result<Vec<String>> {
    let _key = agent.vault.read().await;
    let read = agent.store.read(|db| {
        let apps = secrets::apps(db)?.into_iter();
        let each = apps.map(|app| Ok((secrets::of_app(db, &app)?, app)));
        each.collect::<super::Result<Vec<_>>>()
    });
    let all = read.await?;
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let data_dir = agent.in_force().config.agent.data_dir.clone();
    let look = tokio::task::spawn_blocking(move || {
        let vault = match Vault::open(&data_dir) {
            Ok(vault) => vault,
            Err(error) => return vec![error.to_string()],
        };
        let mut problems: Vec<_> = vault::too_open(&data_dir).into_iter().collect();
        for (of_app, app) in all {
            let (count, fails) = (of_app.len(), |it: &secrets::Secret| {
                vault.unseal(&app, &it.name, &it.sealed).is_err()
            });
            let closed = of_app.into_iter().filter(fails).count();
            if closed > 0 {
                problems.push(format!(
                    "{closed} of {} of `{app}` cannot be decrypted with `{}`: restore the key that belongs to \
                     this database, or set them again (`cutover secret list {app}`, `cutover secret set {app} \
                     NAME`)",
                    words::counted(count as u64, "secret"),
                    vault::path(&data_dir).display()
                ));
            }
        }
        problems
    });
    look.await.map_err(|_| StoreError::Stopped)
}

/// The values that an app's secrets have and had, as far as they can be read: what is hidden in its output.
pub async fn all_values(agent: &Agent, app: &AppName) -> Vec<String> {
    let of = app.clone();
    let _key = agent.vault.read().await;
    let read = agent.store.read(move |db| {
        let now = secrets::of_app(db, &of)?;
        Ok((now, former_secrets::of_app(db, &of)?))
    });
    let (now, former) = read.await.unwrap_or_default();
    if now.is_empty() && former.is_empty() {
        return Vec::new();
    }
    let (of, data_dir) = (app.clone(), agent.in_force().config.agent.data_dir.clone());
    let read = tokio::task::spawn_blocking(move || {
        let Ok(vault) = Vault::open(&data_dir) else {
            return Vec::new();
        };
        let now = now.into_iter().map(|it| (it.name, it.sealed));
        let all = now.chain(former.into_iter().map(|it| (it.name, it.sealed)));
        all.filter_map(|(name, sealed)| vault.unseal(&of, &name, &sealed).ok())
            .collect()
    });
    read.await.unwrap_or_default()
}

/// Seals the secrets of a renamed app for its new name; in the transaction that renames it. One that
/// cannot be read stays as it is, and is told when it is used.
pub fn rename(db: &Connection, vault: &Vault, old: &AppName, new: &AppName) -> super::Result<()> {
    for secret in secrets::of_app(db, new)? {
        let name = &secret.name;
        if let Ok(value) = vault.unseal(old, name, &secret.sealed) {
            secrets::reseal(db, new, name, &vault.seal(new, name, &value))?;
        }
    }
    reseal_former(db, vault, old, new)
}

/// Seals the former values of an app's secrets anew, for the name that the app has now. One that cannot
/// be read stays as it is: it is of no use to anybody.
pub(super) fn reseal_former(
    db: &Connection,
    vault: &Vault,
    old: &AppName,
    new: &AppName,
) -> super::Result<()> {
    for former in former_secrets::of_app(db, new)? {
        let name = &former.name;
        if let Ok(value) = vault.unseal(old, name, &former.sealed) {
            former_secrets::reseal(db, new, &former, &vault.seal(new, name, &value))?;
        }
    }
    Ok(())
}
