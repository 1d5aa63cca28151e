//! What stands behind the names of the images that a build needs, as it is resolved now.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use tokio::time::Instant;

use super::{BuildError, Request};
use crate::config::{Image, Pull};
use crate::engine::Engine;
use crate::store::log::Log;

/// How long the registries may take to name what they have. The builder asks those that did not answer again.
const DEADLINE: Duration = Duration::from_secs(20);

/// How many images the registries are asked for at once.
const AT_ONCE: usize = 8;

/// An image that the build starts from, copies from, or has the Dockerfile read by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    pub name: String,
    /// What the engine has of this name.
    pub id: Option<String>,
    /// What the registry has of it.
    pub digest: Option<String>,
}

/// `bases`: absent if only the builder knows them. `frontends` read the Dockerfile: the builder asks for one
/// only if the engine does not have it.
pub(super) async fn resolved(
    engine: &Engine,
    request: &Request<'_>,
    bases: Option<BTreeSet<String>>,
    frontends: &BTreeSet<String>,
    log: &Log,
) -> Result<Vec<Base>, BuildError> {
    // A build with it is like no other.
    let unknown = || Base {
        name: String::new(),
        id: request.tags.last().cloned(),
        digest: None,
    };
    let is_known = bases.is_some();
    let bases = bases.unwrap_or_default();
    let known = try_join_all(bases.iter().chain(frontends).map(|name| async move {
        Ok::<_, BuildError>(Base {
            name: name.clone(),
            id: engine.image_id(name).await?,
            digest: None,
        })
    }));
    let mut all = known.await?;
    match request.pull {
        Pull::Missing => {}
        Pull::Never => {
            if let Some(base) = all.iter().find(|base| base.id.is_none()) {
                return Err(BuildError::NotHere(base.name.clone()));
            }
            if !is_known {
                return Err(BuildError::UnknownBase);
            }
        }
        Pull::Always => {
            let asked = |base: &Base| bases.contains(&base.name) || base.id.is_none();
            let mut asked: Vec<_> = all.iter_mut().filter(|base| asked(base)).collect();
            if let [first, ..] = &asked[..] {
                let more = match asked.len() - 1 {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                log.line(&format!(
                    "asking the registries what `{}`{more} is now",
                    first.name
                ));
            }
            let until = Instant::now() + DEADLINE;
            let mut all_known = true;
            for some in asked.chunks_mut(AT_ONCE) {
                let digests = some.iter_mut().map(|base| async move {
                    (base.id, base.digest) = (None, digest(engine, &base.name, until).await);
                    base.digest.is_some()
                });
                all_known &= !join_all(digests).await.contains(&false);
            }
            if !all_known {
                all.push(unknown());
            }
        }
    }
    if !is_known {
        all.push(unknown());
    }
    Ok(all)
}

/// `None`: the builder says what is wrong, if it needs the image.
async fn digest(engine: &Engine, name: &str, until: Instant) -> Option<String> {
    let image: Image = name.parse().ok()?;
    if image.digest.is_some() {
        return image.digest;
    }
    let found = tokio::time::timeout_at(until, engine.digest(&image)).await;
    found.ok()?.ok()
}

/// Those of the images whose registry answers at all. The builder waits without end for one that keeps silent, and
/// until then so do all other builds of this engine.
pub(super) async fn caches(engine: &Engine, images: &[Image], log: &Log) -> Vec<String> {
    let asked = images.iter().map(|image| async move {
        let answered = tokio::time::timeout(DEADLINE, engine.digest(image)).await;
        if answered.is_err() {
            log.line(&format!(
                "[build] warning: `{}` has not answered for {} s: building without `{image}` of `build.cache_from`",
                image.registry(),
                DEADLINE.as_secs()
            ));
        }
        answered.is_ok().then(|| image.to_string())
    });
    join_all(asked).await.into_iter().flatten().collect()
}
