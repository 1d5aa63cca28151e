//! A new key for the secrets that Cutover keeps. It is on disk beside the old one before anything is sealed
//! with it, all values are sealed anew in one transaction, and then it takes the old one's place: whenever
//! this is cut short, one of the two opens every value, and the next start goes on.

use rusqlite::Connection;

use super::checkpoint::Checkpoint;
use super::secrets::{SecretsError, reseal_former};
use super::vault::{self, Vault, VaultError};
use super::{Agent, words};
use crate::ids::AppName;
use crate::principal::Requester;
use crate::store::secrets::Secret;
use crate::store::{StoreError, actions, secrets};

/// What a new key did.
pub struct Rekeyed {
    /// How many values were sealed anew.
    pub secrets: usize,
    /// What a person is to do now.
    pub left: String,
}

/// Nothing is changed if a value cannot be read.
pub async fn rekey(agent: &Agent, by: Option<Requester>) -> Result<Rekeyed, SecretsError> {
    // Nobody seals or reads a value meanwhile.
    let _alone = agent.vault.write().await;
    let data_dir = agent.in_force().config.agent.data_dir.clone();
    let (stored, any) = (agent.store)
        .read(|db| Ok((all(db)?, secrets::any(db)?)))
        .await?;
    let folder = data_dir.clone();
    let opened = tokio::task::spawn_blocking(move || {
        // A new key beside values that another one has sealed would hide that the other is lost.
        let now = match any {
            true => Vault::open(&folder)?,
            false => Vault::open_or_make(&folder)?,
        };
        for (app, secret) in &stored {
            now.unseal(app, &secret.name, &secret.sealed)?;
        }
        Vault::open_next(&folder)
    });
    let vault = opened.await.map_err(|_| StoreError::Stopped)??;
    Checkpoint::Rekeying.reach();
    let write = agent.store.write(move |db| {
        let stored = all(db)?;
        for (app, secret) in &stored {
            let name = &secret.name;
            let value = vault.unseal(app, name, &secret.sealed);
            let value = value.map_err(|error| StoreError::Refused(error.to_string()))?;
            secrets::reseal(db, app, name, &vault.seal(app, name, &value))?;
        }
        for app in secrets::apps(db)? {
            reseal_former(db, &vault, &app, &app)?;
        }
        let count = stored.len();
        if let Some(by) = by {
            let detail = serde_json::json!({ "secrets": count });
            actions::insert(db, actions::Kind::Rekey, None, &detail, &by)?;
        }
        Ok(count)
    });
    let count = write.await?;
    Checkpoint::Rekeyed.reach();
    let folder = data_dir.clone();
    let advanced = tokio::task::spawn_blocking(move || vault::advance(&folder));
    let advanced = advanced.await.map_err(|_| StoreError::Stopped)?;
    let left = advanced.map_err(|error| VaultError::Key {
        path: vault::path(&data_dir),
        cause: error.to_string(),
    })?;
    let what = words::counted(count as u64, "secret");
    tracing::info!("the key of the secrets is a new one; {what} sealed anew: {left}");
    Ok(Rekeyed {
        secrets: count,
        left,
    })
}

fn all(db: &Connection) -> super::Result<Vec<(AppName, Secret)>> {
    let mut all = Vec::new();
    for app in secrets::apps(db)? {
        let of_app = secrets::of_app(db, &app)?.into_iter();
        all.extend(of_app.map(|secret| (app.clone(), secret)));
    }
    Ok(all)
}

/// Goes on with a change of the key that was cut short. What fails is tried again at the next start; until
/// then both keys are used.
pub async fn resume(agent: &Agent) {
    let data_dir = agent.in_force().config.agent.data_dir.clone();
    let cut_short = tokio::task::spawn_blocking(move || vault::is_changing(&data_dir)).await;
    if !cut_short.unwrap_or(false) {
        return;
    }
    if let Err(error) = rekey(agent, None).await {
        tracing::error!(%error, "a change of the key of the secrets was cut short and cannot go on yet");
    }
}
