//! What carries this agent's labels although no record names it: what a lost database, or one that was
//! restored from a backup, does not know any more. Nothing of it is removed until a person has seen it:
//! [`gc`] removes it, [`adopt`] records what serves again.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use rusqlite::Connection;

use super::{Agent, Result, routes};
use crate::engine::EngineError;
use crate::engine::inventory::{
    FoundContainer, FoundImage, FoundNetwork, FoundVolume, ImageTag, Inventory,
};
use crate::proxy::table::Table;
use crate::store::ours::Ours;
use crate::store::{
    StoreError, app_names, deployments, given_up, images, instances, jobs, volumes,
};

pub mod adopt;
pub mod gc;

/// How long all sizes together may take: the engine adds up files for them.
const SIZES: Duration = Duration::from_secs(5);
const AT_ONCE: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum OrphanError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// In the order in which they can be removed: a container uses the others.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = OrphanKind)]
pub enum Kind {
    Container,
    Network,
    Image,
    Volume,
}

/// Something that no record names.
#[derive(Debug, Clone)]
pub struct Orphan {
    pub kind: Kind,
    /// As the engine knows it; a volume's is its name.
    pub id: String,
    pub name: String,
    pub app: Option<String>,
    /// In milliseconds since 1970.
    pub created_at: i64,
    /// In bytes, where the engine knows it.
    pub size: Option<u64>,
    /// Why it is one.
    pub reason: String,
    /// Why it must not be removed.
    pub in_use: Option<String>,
}

/// What no record names, and what else was found on the way.
struct Found {
    orphans: Inventory,
    /// Every image, recorded or not.
    images: Vec<FoundImage>,
    table: Table,
}

/// Looks at the engine first: what it names was recorded before it was made.
async fn find(agent: &Agent) -> std::result::Result<Found, OrphanError> {
    let inventory = agent.engine.inventory().await?;
    let table = routes::routed(agent).await;
    let images = inventory.images.clone();
    let read = agent.store.read(move |db| unrecorded(db, inventory));
    Ok(Found {
        orphans: read.await?,
        images,
        table,
    })
}

fn unrecorded(db: &Connection, mut all: Inventory) -> Result<Inventory> {
    let rows: Vec<Ours> = instances::all(db)?.iter().map(|it| it.ours()).collect();
    let recorded = images::recorded(db)?;
    let named = all.images.iter().filter(|it| has_our_names(it));
    let images: HashSet<String> = named
        .map(|it| it.id.clone())
        .chain(recorded.iter().cloned())
        .collect();
    let mut containers = Vec::new();
    for it in all.containers {
        let job = jobs::get(db, &it.name)?.map(|job| job.ours());
        let late = it.mark.as_deref();
        let late = late
            .map(|mark| given_up::get(db, &it.name, mark))
            .transpose()?;
        let late = late.flatten();
        let mut recorded = rows.iter().chain(&job).chain(&late);
        let is_recorded = recorded.any(|row| row.name == it.name && row.has(it.mark.as_deref()));
        if (has_our_name(&it) || was_renamed(&it, &images)) && !is_recorded {
            containers.push(it);
        }
    }
    let mut unknown = Vec::new();
    for it in all.images {
        if !recorded.contains(&it.id) && has_our_names(&it) && !is_of_deployment(db, &it)? {
            unknown.push(it);
        }
    }
    let known: HashSet<String> = volumes::all(db)?.into_iter().map(|it| it.name).collect();
    let of_containers = containers.iter().flat_map(|it| {
        let volumes = it.volumes.iter();
        volumes.map(|(name, path)| FoundVolume {
            name: name.clone(),
            path: Some(path.clone()),
            app: it.app.clone(),
            release: it.release.clone(),
            created_at: it.created_at,
        })
    });
    all.volumes.extend(of_containers);
    all.volumes.retain(|it| !known.contains(&it.name));
    Ok(Inventory {
        containers,
        images: unknown,
        ..all
    })
}

/// A container that was run from an image that was committed from ours has our labels, but not a name of
/// ours: it is somebody else's.
fn has_our_name(it: &FoundContainer) -> bool {
    let app = it.app.as_ref().map(|app| format!("cutover-{app}-"));
    app.is_some_and(|prefix| it.name.starts_with(&prefix))
}

/// One of ours that somebody gave another name: only what Cutover made has a mark, and what was run from an
/// image that was committed from ours, which has it too, has another image.
fn was_renamed(it: &FoundContainer, images: &HashSet<String>) -> bool {
    !has_our_name(it) && it.app.is_some() && it.mark.is_some() && images.contains(&it.image_id)
}

/// So is an image that was built from one of ours.
fn has_our_names(it: &FoundImage) -> bool {
    it.names
        .iter()
        .any(|name| Some(&name.app) == it.app.as_ref())
}

/// Whether it is the image of a deployment that the database knows, of an app that deploy.toml has: then it is
/// tidied with the app, recorded or not.
fn is_of_deployment(db: &Connection, it: &FoundImage) -> Result<bool> {
    for name in &it.names {
        if let ImageTag::Deployment(id) = &name.tag
            && let Some(of) = deployments::get(db, id)?
            && !app_names::is_gone(db, &of.app)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What no record names, with its size.
pub async fn list(agent: &Agent) -> std::result::Result<Vec<Orphan>, OrphanError> {
    let mut orphans = all(find(agent).await?);
    let containers = orphans.iter_mut().filter(|it| it.kind == Kind::Container);
    let sizes = stream::iter(containers).for_each_concurrent(AT_ONCE, |it| async move {
        if let Ok(Some(details)) = agent.engine.details(&it.id).await {
            it.size = details.size;
        }
    });
    let _ = tokio::time::timeout(SIZES, sizes).await;
    Ok(orphans)
}

fn all(found: Found) -> Vec<Orphan> {
    let serving = routes::targets(&found.table);
    let Inventory {
        containers,
        images,
        networks,
        volumes,
    } = found.orphans;
    let serves = |it: &FoundContainer| it.addresses.iter().any(|ip| serving.contains(ip));
    let mut orphans: Vec<_> = containers
        .iter()
        .map(|it| container(it, serves(it)))
        .collect();
    let users = |uses: &dyn Fn(&FoundContainer) -> bool| {
        let mut all = containers.iter().filter(|it| serves(it) && uses(it));
        let user = all.next()?;
        Some(format!(
            "the container `{}`, which serves, uses it",
            user.name
        ))
    };
    orphans.extend(networks.into_iter().map(|it| {
        let used = it.containers.iter();
        let mut by_others = used.filter(|name| {
            let mut ours = containers.iter().filter(|ours| !serves(ours));
            !ours.any(|ours| ours.name == **name)
        });
        let user = by_others.next().cloned();
        network(it, user)
    }));
    orphans.extend(images.into_iter().map(|it| {
        let user = users(&|container| container.image_id == it.id);
        image(it, user)
    }));
    orphans.extend(volumes.into_iter().map(|it| {
        let user = users(&|container| container.volumes.iter().any(|(name, _)| *name == it.name));
        volume(it, user)
    }));
    orphans
}

fn container(it: &FoundContainer, serves: bool) -> Orphan {
    let state = if it.running { "runs" } else { "is stopped" };
    Orphan {
        kind: Kind::Container,
        id: it.id.clone(),
        name: it.name.clone(),
        app: it.app.as_ref().map(ToString::to_string),
        created_at: it.created_at,
        size: None,
        reason: match has_our_name(it) {
            true => format!("it {state}, and the database has no record of it"),
            false => format!("it {state} under a name that somebody gave it, and no record has it"),
        },
        in_use: serves.then(|| "the proxy sends requests to it".to_owned()),
    }
}

fn network(it: FoundNetwork, user: Option<String>) -> Orphan {
    Orphan {
        kind: Kind::Network,
        id: it.id,
        name: it.name,
        app: None,
        created_at: it.created_at,
        size: None,
        reason: "an agent whose database is lost made it".to_owned(),
        in_use: user.map(|name| format!("the container `{name}` is connected to it")),
    }
}

fn image(it: FoundImage, in_use: Option<String>) -> Orphan {
    Orphan {
        kind: Kind::Image,
        name: it
            .names
            .first()
            .map_or_else(|| it.id.clone(), |name| name.full.clone()),
        app: it.app.map(String::from),
        created_at: it.created_at,
        size: Some(it.size),
        reason: "no release in the database has it".to_owned(),
        in_use,
        id: it.id,
    }
}

fn volume(it: FoundVolume, in_use: Option<String>) -> Orphan {
    Orphan {
        kind: Kind::Volume,
        id: it.name.clone(),
        name: it.name,
        app: it.app.map(String::from),
        created_at: it.created_at,
        size: None,
        reason: "a container that the database does not know has written to it".to_owned(),
        in_use,
    }
}
