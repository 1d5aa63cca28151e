//! `build.contexts`: folders and images that a Dockerfile names besides its own stages. The builder that is
//! part of older engines knows no such names: each folder becomes an image, and the Dockerfile that is sent
//! names that.

use std::collections::BTreeMap;
use std::sync::Arc;

use git2::{ObjectType, Oid};
use parking_lot::Mutex;

use super::arguments::Arguments;
use super::context::{Context, Folder};
use super::renamed::renamed;
use super::resolved::Base;
use super::{BuildError, Request};
use crate::config::{self, Image, Named, Pull};
use crate::engine::{BuildSpec, Engine};
use crate::store::log::Log;

/// What a folder is as a base image, before it is one.
const EMPTY: &str = "scratch";
/// How much of a context's name is part of an image's tag.
const SHOWN: usize = 40;

/// An image that is needed for one build: its id and name.
pub(super) struct Made(Vec<(String, String)>);

/// The Dockerfile with images in place of the contexts' names, and nothing in place of folders.
pub(super) fn without_folders(
    dockerfile: &str,
    arguments: &Arguments<'_>,
    settings: &config::Build,
) -> String {
    if settings.contexts.is_empty() {
        return dockerfile.to_owned();
    }
    renamed(dockerfile, arguments, |name| {
        let (_, of) = find(settings, name)?;
        Some(match of {
            Named::Folder(_) => EMPTY.to_owned(),
            Named::Image(image) => image.to_string(),
        })
    })
}

/// Makes an image of each folder that the Dockerfile names, and puts the images' names in place of theirs.
pub(super) async fn make(
    engine: &Engine,
    request: &Request<'_>,
    context: &mut Context,
    arguments: &Arguments<'_>,
    bases: &[Base],
    log: &Log,
) -> Result<Made, BuildError> {
    let settings = request.settings;
    let mut made = Made(Vec::new());
    if settings.contexts.is_empty() {
        return Ok(made);
    }
    let own = request.tags.last().map_or("", String::as_str);
    let mut used = BTreeMap::new();
    let text = String::from_utf8_lossy(&context.dockerfile.text).into_owned();
    let text = renamed(&text, arguments, |name| {
        let (name, of) = find(settings, name)?;
        Some(match of {
            Named::Image(image) => image.to_string(),
            Named::Folder(_) => {
                let next = used.len();
                let image = used.entry(name.to_owned()).or_insert_with(|| {
                    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
                    let shown: String = name.chars().map(plain).take(SHOWN).collect();
                    format!("{own}-context-{next}-{shown}")
                });
                image.clone()
            }
        })
    });
    for folder in std::mem::take(&mut context.named) {
        if let Some(image) = used.get(&folder.name) {
            let id = image_of(engine, request, folder, image, log).await?;
            made.0.push((id, image.clone()));
        }
    }
    if request.pull == Pull::Always && !made.0.is_empty() {
        // The builder would ask the registries for the folders' images too.
        for base in bases.iter().filter(|base| base.id.is_none()) {
            if let Ok(image) = base.name.parse::<Image>() {
                log.line(&format!("looking up `{image}`"));
                engine.pull(&image, settings.platform.as_deref()).await?;
            }
        }
    }
    context.dockerfile.id =
        Oid::hash_object(ObjectType::Blob, text.as_bytes()).unwrap_or(context.dockerfile.id);
    context.dockerfile.text = text.into_bytes();
    Ok(made)
}

impl Made {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What they are made of stays in the builder's cache. A name that an agent which is killed leaves goes
    /// with those of its deployment.
    pub(super) async fn remove(self, engine: &Engine) {
        for (id, name) in self.0 {
            if let Err(error) = engine.untag_image(&id, &name).await {
                tracing::debug!(name, %error, "left behind until the app is tidied up");
            }
        }
    }
}

async fn image_of(
    engine: &Engine,
    request: &Request<'_>,
    folder: Folder,
    image: &str,
    log: &Log,
) -> Result<String, BuildError> {
    let Folder {
        name,
        folder,
        context,
    } = folder;
    log.line(&format!(
        "context `{name}` from `{folder}`: {}",
        context.extent()
    ));
    let shared_key = request.shared_key(&format!("named {folder}"));
    let dockerfile = context.dockerfile.named.clone();
    let spec = BuildSpec {
        dockerfile: &dockerfile,
        shared_key: &shared_key,
        name: image,
        args: &BTreeMap::new(),
        labels: &request.labels,
        target: None,
        platform: request.settings.platform.as_deref(),
        network: None,
        extra_hosts: &BTreeMap::new(),
        shm_size: None,
        secrets: BTreeMap::new(),
        ssh: BTreeMap::new(),
        cache_from: Vec::new(),
        keeps_cache: false,
        attests: false,
        scanner: None,
        no_cache: false,
        pull: false,
    };
    let dockerfile = Arc::new(Mutex::new(context.dockerfile_folder()));
    let context = Arc::new(Mutex::new(context));
    let built = engine.build(&spec, dockerfile, context.clone(), None).await;
    match (built, context.lock().failed.take()) {
        (Ok(built), _) => Ok(built.id),
        (Err(_), Some(error @ BuildError::Source(_))) => Err(error),
        (Err(failure), _) => Err(failure.into()),
    }
}

/// A context by the name that a Dockerfile gives it: in any case, and as Docker completes an image's name.
fn find<'a>(settings: &'a config::Build, name: &str) -> Option<(&'a str, &'a Named)> {
    let full = |name: &str| name.parse::<Image>().ok().map(|image| image.canonical());
    let lower = name.to_ascii_lowercase();
    let wanted = full(&lower);
    let is_meant = |own: &str| {
        let own = own.to_ascii_lowercase();
        own == lower || wanted.is_some() && full(&own) == wanted
    };
    let mut all = settings.contexts.iter();
    let (name, of) = all.find(|(own, _)| is_meant(own))?;
    Some((name, of))
}
