//! Removes what no record names, once a person has seen it.

use std::sync::Arc;

use serde_json::json;

use super::{Kind, Orphan, OrphanError, all, find};
use crate::deploy::Agent;
use crate::engine::{Engine, EngineError};
use crate::principal::Requester;
use crate::store::{StoreError, actions};

/// What to remove, by its id: a name may be another's by now.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, serde::Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OrphanItem)]
pub struct Item {
    pub kind: Kind,
    #[schema(min_length = 1, max_length = 255)]
    pub id: String,
}

#[derive(Debug, Default)]
pub struct Removed {
    pub removed: Vec<Orphan>,
    /// What is still there, and why.
    pub left: Vec<(Item, String)>,
}

/// Removes those of `wanted` that no record names now either and that nothing uses. Runs to its end even
/// if nobody waits for it any more.
pub async fn gc(
    agent: &Arc<Agent>,
    mut wanted: Vec<Item>,
    by: Requester,
) -> Result<Removed, OrphanError> {
    if wanted.is_empty() {
        return Ok(Removed::default());
    }
    let agent = agent.clone();
    let done = tokio::spawn(async move {
        // What is adopted at this moment is not removed.
        let _turn = agent.changing.lock().await;
        let now = all(find(&agent).await?);
        let detail = json!({ "items": wanted });
        tracing::info!(%by, items = wanted.len(), "removing what no record names");
        let record = move |db: &_| actions::insert(db, actions::Kind::Gc, None, &detail, &by);
        agent.store.write(record).await?;
        wanted.sort_by_key(|item| item.kind);
        let mut done = Removed::default();
        for item in wanted {
            let is_item = |it: &&Orphan| it.kind == item.kind && it.id == item.id;
            let Some(orphan) = now.iter().find(is_item) else {
                let why = "it is gone, or the database has a record of it now";
                done.left.push((item, why.to_owned()));
                continue;
            };
            if let Some(why) = &orphan.in_use {
                done.left.push((item, why.clone()));
                continue;
            }
            match remove(&agent.engine, &item).await {
                Ok(()) => {
                    let (kind, name) = (item.kind, &orphan.name);
                    tracing::info!(?kind, name, id = item.id, "removed what no record names");
                    done.removed.push(orphan.clone());
                }
                Err(error) => done.left.push((item, error.to_string())),
            }
        }
        Ok(done)
    });
    done.await.map_err(|_| StoreError::Stopped)?
}

async fn remove(engine: &Engine, item: &Item) -> Result<(), EngineError> {
    match item.kind {
        Kind::Container => engine.remove_unrecorded(&item.id).await,
        Kind::Network => engine.remove_network(&item.id).await,
        Kind::Image => engine.remove_image(&item.id).await,
        Kind::Volume => engine.remove_volume(&item.id).await,
    }
}
