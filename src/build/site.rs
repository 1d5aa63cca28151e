//! The image of a static site: the server that this program brings, and the folder's files.

use git2::{ObjectType, Oid};
use serde_json::json;

use super::BuildError;
use super::dockerfile::Dockerfile;
use super::objects::Objects;
use super::walk::{Kind, List, Place};
use crate::config::Site;
use crate::source::Commit;

/// The static binary that `build.rs` built from `src/site`; empty if it could not.
pub const SERVER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/site"));

/// Where the site is in the context and in the image.
pub(super) const FOLDER: &str = "site";
const NAME: &str = "server";

/// An error if this program brings no server.
pub(super) fn is_served() -> Result<(), BuildError> {
    match SERVER.is_empty() {
        true => Err(BuildError::NoServer),
        false => Ok(()),
    }
}

/// An error if there is nothing to serve.
pub(super) fn check(objects: &Objects, commit: &Commit, folder: &str) -> Result<(), BuildError> {
    is_served()?;
    match objects.folder(&commit.tree, folder) {
        Err(BuildError::NoContext(dir)) => Err(BuildError::NoSite(dir)),
        found => found.map(drop),
    }
}

pub(super) fn dockerfile(site: &Site) -> Dockerfile {
    let mut start = vec![format!("/{NAME}"), format!("/{FOLDER}")];
    let fallback = site.fallback.iter().map(|file| ("--fallback", file));
    let immutable = site.immutable.iter().map(|it| ("--immutable", it));
    for (name, value) in fallback.chain(immutable) {
        start.extend([name.to_owned(), value.clone()]);
    }
    let text = format!(
        "FROM scratch\nCOPY {NAME} /{NAME}\nCOPY {FOLDER} /{FOLDER}\nUSER 65534:65534\nENTRYPOINT {}\n",
        json!(start)
    );
    Dockerfile::made(text)
}

/// Adds the server, and says what the site lacks.
pub(super) fn add(list: &mut List, site: &Site, log: &dyn Fn(&str)) -> Result<(), BuildError> {
    let index = format!("{FOLDER}/index.html");
    let has = |path: &str| list.entries.iter().any(|it| it.path == path.as_bytes());
    if !has(&index) {
        log(&format!(
            "[build] warning: `{}` has no `index.html`: `/` will be answered with 404",
            site.dir
        ));
    }
    if let Some(fallback) = &site.fallback
        && !has(&format!("{FOLDER}/{fallback}"))
    {
        return Err(BuildError::NoFallback {
            fallback: fallback.clone(),
            dir: site.dir.clone(),
        });
    }
    let server = Kind::File {
        id: Oid::hash_object(ObjectType::Blob, SERVER).unwrap_or(Oid::ZERO_SHA1),
        size: SERVER.len() as u64,
        executable: true,
        place: Place::Own(SERVER),
        time: 0,
    };
    list.push(NAME.into(), server)
}
