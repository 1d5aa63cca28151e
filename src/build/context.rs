//! The build context: a commit's folder, read from the git object database as the builder asks for it.

use std::path::Path;

use git2::Tree;
use sha2::{Digest, Sha256};

use super::checkout::Work;
use super::dockerfile::{self, Dockerfile};
use super::ignore::{Fits, Ignore};
use super::objects::Objects;
use super::times::Times;
use super::walk::{List, Part, Walk};
use super::{BuildError, checkout, git_dir, link, parts, site};
use crate::config::{self, Named};
use crate::source::{Commit, Fetching, Mirror};

const MAX_IGNORE: u64 = 1 << 20;
/// All files and nothing else.
const ALL: &str = "FROM scratch\nCOPY . /\n";

/// The checked list of what the builder may ask for. Reading and sending it block.
pub struct Context {
    pub(super) parts: Vec<Part>,
    pub(super) list: List,
    pub(super) dockerfile: Dockerfile,
    /// The other folders that the Dockerfile may name.
    pub(super) named: Vec<Folder>,
    /// Where its `.git` is, if it has one.
    _git_dir: Option<Work>,
    /// The commit's, in seconds since 1970.
    pub(super) time: u64,
    /// Why a file could not be read while it was sent.
    pub(super) failed: Option<BuildError>,
}

impl Context {
    /// Lists the context folder of `commit` without what its .dockerignore excludes, and with its
    /// submodules and the files of Git LFS, which are fetched if they are not here yet. What cannot be
    /// built is refused here, before the engine is involved.
    pub fn read(
        mirror: &Mirror,
        commit: &Commit,
        settings: &config::Build,
        fetching: &Fetching<'_>,
    ) -> Result<Self, BuildError> {
        let folder = within(match &settings.site {
            Some(site) if settings.command.is_none() => &site.dir,
            _ => &settings.context,
        })?;
        let objects = Objects::open(mirror)?;
        let (ignore, dockerfile, path) = match &settings.site {
            // Everything, for a program.
            site if settings.command.is_some() => {
                let made = site.as_ref().map(site::dockerfile);
                let dockerfile = made.unwrap_or_else(|| Dockerfile::made(String::new()));
                (Ignore::default(), dockerfile, "")
            }
            Some(site) => {
                site::check(&objects, commit, &folder)?;
                (Ignore::default(), site::dockerfile(site), site::FOLDER)
            }
            None => {
                let root = objects.folder(&commit.tree, "")?;
                let named = settings.dockerfile.as_deref().map(within).transpose()?;
                let dockerfile = dockerfile::find(&objects, &root, named.as_deref(), &folder)?;
                // A file named after the Dockerfile takes precedence over the context's own.
                let own = format!("{}.dockerignore", dockerfile.named);
                let of_folder = dockerfile::joined(&folder, ".dockerignore");
                let ignore = rules(&objects, &root, [own, of_folder])?;
                (ignore, dockerfile, "")
            }
        };
        let (parts, mut list) = listed(objects, commit, folder, path, &ignore, fetching)?;
        if let Some(site) = &settings.site
            && settings.command.is_none()
        {
            site::add(&mut list, site, fetching.log)?;
        }
        let git_dir = match settings.git_dir {
            true => Some(git_dir::add(mirror, commit, &ignore, &mut list, fetching)?),
            false => None,
        };
        let time = set_times(mirror, commit, &times_of(settings), &mut list);
        Ok(Self {
            dockerfile,
            parts,
            list,
            _git_dir: git_dir,
            named: named(mirror, commit, settings, fetching)?,
            time,
            failed: None,
        })
    }

    /// The same of another folder, with the rules in it alone and this Dockerfile.
    pub(super) fn folder(
        mirror: &Mirror,
        commit: &Commit,
        folder: &str,
        dockerfile: Dockerfile,
        fetching: &Fetching<'_>,
    ) -> Result<Self, BuildError> {
        let record = format!("named {folder}");
        let folder = within(folder)?;
        let objects = Objects::open(mirror)?;
        let root = objects.folder(&commit.tree, "")?;
        let own = dockerfile::joined(&folder, ".dockerignore");
        let ignore = rules(&objects, &root, [own])?;
        drop(root);
        let (parts, mut list) = listed(objects, commit, folder, "", &ignore, fetching)?;
        let time = set_times(mirror, commit, &record, &mut list);
        Ok(Self {
            dockerfile,
            parts,
            list,
            _git_dir: None,
            named: Vec::new(),
            time,
            failed: None,
        })
    }

    /// Nothing but an image that exists: the builder pulls it, and it gets the app's labels.
    pub(super) fn of_image(image: &str) -> Self {
        let text = format!("FROM {image}\n");
        Self {
            parts: Vec::new(),
            list: List::default(),
            dockerfile: Dockerfile::made(text),
            _git_dir: None,
            named: Vec::new(),
            time: 0,
            failed: None,
        }
    }

    /// A site that a program has made in this folder.
    pub(super) fn of_site(
        site: &config::Site,
        folder: &Path,
        log: &dyn Fn(&str),
    ) -> Result<Self, BuildError> {
        site::is_served()?;
        let mut list = checkout::list(folder, site::FOLDER)?;
        site::add(&mut list, site, log)?;
        Ok(Self {
            parts: Vec::new(),
            list,
            dockerfile: site::dockerfile(site),
            _git_dir: None,
            named: Vec::new(),
            time: 0,
            failed: None,
        })
    }
}

/// A folder by its name in the Dockerfile.
pub(super) struct Folder {
    pub(super) name: String,
    pub(super) folder: String,
    pub(super) context: Context,
}

/// Lists the folders of `build.contexts`.
fn named(
    mirror: &Mirror,
    commit: &Commit,
    settings: &config::Build,
    fetching: &Fetching<'_>,
) -> Result<Vec<Folder>, BuildError> {
    let mut all = Vec::new();
    for (name, of) in &settings.contexts {
        if let Named::Folder(folder) = of {
            let dockerfile = Dockerfile::made(ALL.to_owned());
            all.push(Folder {
                name: name.clone(),
                folder: folder.clone(),
                context: Context::folder(mirror, commit, folder, dockerfile, fetching)?,
            });
        }
    }
    Ok(all)
}

/// Lists a folder of the commit, at `path` in the context.
fn listed(
    objects: Objects,
    commit: &Commit,
    folder: String,
    path: &str,
    ignore: &Ignore,
    fetching: &Fetching<'_>,
) -> Result<(Vec<Part>, List), BuildError> {
    let root = objects.folder(&commit.tree, "")?.id();
    let own = Part {
        root,
        objects,
        folder,
        path: path.into(),
        fits: Fits::default(),
        depth: 0,
    };
    let walk = Walk {
        ignore,
        stop: fetching.cancel,
        list: List::default(),
        visited: 0,
    };
    parts::all(own, walk, fetching)
}

/// Sets the times of the files by the record of this name; returns the commit's.
fn set_times(mirror: &Mirror, commit: &Commit, record: &str, list: &mut List) -> u64 {
    let time = commit.time.unix_timestamp().max(0) as u64;
    let name = hex::encode(&Sha256::digest(record)[..8]);
    let record = mirror.more().join("times").join(name);
    Times::read(&record).set(list, time);
    Times::write(record, list);
    time
}

/// What the record of the main context is called.
fn times_of(settings: &config::Build) -> String {
    match &settings.site {
        Some(site) => format!("site {}", site.dir),
        None => settings.context.clone(),
    }
}

/// The rules in the first of these files that there is.
fn rules<const N: usize>(
    objects: &Objects,
    root: &Tree<'_>,
    names: [String; N],
) -> Result<Ignore, BuildError> {
    for name in names {
        let path = dockerfile::followed(objects, root, &name)?;
        if let Ok(entry) = root.get_path(path.as_ref())
            && entry.kind() == Some(git2::ObjectType::Blob)
        {
            let blob = objects.blob(entry.id(), &name, MAX_IGNORE)?;
            return Ignore::parse(&name, &String::from_utf8_lossy(blob.content()));
        }
    }
    Ok(Ignore::default())
}

/// Normalizes a configured path: `./a//b/` becomes `a/b`, and one that leads out is an error.
pub(super) fn within(path: &str) -> Result<String, BuildError> {
    (!path.starts_with('/'))
        .then(|| link::follow(path, |_| None))
        .flatten()
        .ok_or_else(|| BuildError::Outside(path.to_owned()))
}
