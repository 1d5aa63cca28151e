//! The build context: a commit's folder, read from the git object database as the builder asks for it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use git2::{Oid, Tree};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::convert::converted;
use super::dockerfile::{self, Dockerfile};
use super::ignore::{Fits, Ignore};
use super::objects::Objects;
use super::times::Times;
use super::walk::{Kind, List, Part, Place, Walk};
use super::{BuildError, checkout, link, parts, site};
use crate::config;
use crate::engine::EngineError;
use crate::engine::files::{FileEntry, FileKind, Files};
use crate::source::{Commit, Fetching, Mirror};

const MAX_IGNORE: u64 = 1 << 20;

/// The checked list of what the builder may ask for. Reading and sending it block.
pub struct Context {
    parts: Vec<Part>,
    pub(super) list: List,
    pub(super) dockerfile: Dockerfile,
    /// The commit's, in seconds since 1970.
    time: u64,
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
                let ignore = rules(&objects, &root, &dockerfile.named, &folder)?;
                (ignore, dockerfile, "")
            }
        };
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
            ignore: &ignore,
            stop: fetching.cancel,
            list: List::default(),
            visited: 0,
        };
        let (parts, mut list) = parts::all(own, walk, fetching)?;
        if let Some(site) = &settings.site
            && settings.command.is_none()
        {
            site::add(&mut list, site, fetching.log)?;
        }
        let time = commit.time.unix_timestamp().max(0) as u64;
        let record = mirror.more().join("times").join(times_of(settings));
        Times::read(&record).set(&mut list, time);
        Times::write(record, &list);
        Ok(Self {
            dockerfile,
            parts,
            list,
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
            time: 0,
            failed: None,
        })
    }

    /// How many files, folders and links it has.
    pub fn entries(&self) -> usize {
        self.list.entries.len()
    }

    /// The total size of the files, in bytes.
    pub fn size(&self) -> u64 {
        self.list.size
    }

    /// The Dockerfile, in a folder of its own: whether the image gets it is up to .dockerignore.
    pub(super) fn dockerfile_folder(&self) -> dockerfile::Folder {
        dockerfile::Folder::of(&self.dockerfile, stamp(self.time, self.dockerfile.id))
    }

    /// Writes all of it as a tar. The same commit and settings give the same bytes.
    pub fn send(&self, sink: impl Write) -> Result<(), BuildError> {
        self.tar(None, sink)
    }

    /// `dockerfile`: the name under which the tar has the Dockerfile as well.
    fn tar(&self, dockerfile: Option<&str>, sink: impl Write) -> Result<(), BuildError> {
        let mut tar = tar::Builder::new(sink);
        if let Some(name) = dockerfile {
            let mut header = self.header(EntryType::Regular, 0o644);
            header.set_size(self.dockerfile.text.len() as u64);
            let text = self.dockerfile.text.as_slice();
            tar.append_data(&mut header, name, text).map_err(gone)?;
        }
        for entry in &self.list.entries {
            let path = Path::new(OsStr::from_bytes(&entry.path));
            let sent = match &entry.kind {
                Kind::Folder => {
                    let mut header = self.header(EntryType::Directory, 0o755);
                    tar.append_data(&mut header, path, io::empty())
                }
                Kind::File {
                    id,
                    executable,
                    place,
                    time,
                    ..
                } => {
                    let mode = if *executable { 0o755 } else { 0o644 };
                    let mut header = self.header(EntryType::Regular, mode);
                    header.set_mtime(*time);
                    let name = path.to_string_lossy();
                    self.content_of(*id, place, &name, |size, content| {
                        header.set_size(size);
                        tar.append_data(&mut header, path, content)
                    })?
                }
                Kind::Link(target) => {
                    let mut header = self.header(EntryType::Symlink, 0o777);
                    // Written verbatim; the crate normalizes only a long one.
                    match header.set_link_name_literal(target) {
                        Ok(()) => tar.append_data(&mut header, path, io::empty()),
                        Err(_) => tar.append_link(&mut header, path, OsStr::from_bytes(target)),
                    }
                }
            };
            sent.map_err(gone)?;
        }
        (tar.into_inner().and_then(|mut sink| sink.flush())).map_err(gone)
    }

    fn header(&self, kind: EntryType, mode: u32) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.time);
        header.set_size(0);
        header
    }

    /// Passes a file's size and content to `take`.
    fn content_of(
        &self,
        id: Oid,
        place: &Place,
        name: &str,
        take: impl FnOnce(u64, &mut dyn Read) -> io::Result<()>,
    ) -> Result<io::Result<()>, BuildError> {
        match place {
            Place::Part(number) => self.parts[*number].objects.content(id, name, take),
            Place::Converted { part, id, how } => {
                let objects = &self.parts[*part].objects;
                let blob = objects.blob(*id, name, u64::MAX)?;
                let made = converted(*id, blob.content(), *how);
                let bytes = made.as_deref().unwrap_or(blob.content());
                Ok(take(bytes.len() as u64, &mut &*bytes))
            }
            Place::Own(bytes) => Ok(take(bytes.len() as u64, &mut &**bytes)),
            Place::Stored(path) => Ok(File::open(path).and_then(|mut file| {
                let size = file.metadata()?.len();
                take(size, &mut file)
            })),
        }
    }

    /// Keeps the error, since all that the builder says is that it was not sent everything.
    fn keep<T>(&mut self, done: Result<T, BuildError>) -> io::Result<T> {
        done.map_err(|error| {
            let said = io::Error::other(error.to_string());
            self.failed.get_or_insert(error);
            said
        })
    }
}

impl Files for Context {
    fn entries(&self) -> Arc<[FileEntry]> {
        let entries = self.list.entries.iter().map(|entry| {
            let (time, kind) = match &entry.kind {
                Kind::Folder => (stamp(self.time, Oid::ZERO_SHA1), FileKind::Folder),
                Kind::Link(target) => (
                    stamp(self.time, Oid::ZERO_SHA1),
                    FileKind::Link(target.clone()),
                ),
                Kind::File {
                    id,
                    size,
                    executable,
                    time,
                    ..
                } => {
                    let (size, executable) = (*size, *executable);
                    (stamp(*time, *id), FileKind::File { size, executable })
                }
            };
            FileEntry {
                path: entry.path.clone(),
                time,
                kind,
            }
        });
        entries.collect()
    }

    fn content(&mut self, place: usize, to: &mut dyn Write) -> io::Result<()> {
        let entry = self.list.entries.get(place);
        let Some((Kind::File { id, place, .. }, path)) = entry.map(|it| (&it.kind, &it.path))
        else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let name = String::from_utf8_lossy(path);
        let sent = self.content_of(*id, place, &name, |_, content| {
            io::copy(content, to).map(drop)
        });
        self.keep(sent)?
    }

    fn tar(&mut self, dockerfile: &str, to: &mut dyn Write) -> io::Result<()> {
        let sent = Self::tar(self, Some(dockerfile), to);
        self.keep(sent)
    }
}

/// A time in nanoseconds that is different for another content, even of two commits in one second.
fn stamp(seconds: u64, id: Oid) -> i64 {
    let head = id.as_bytes().first_chunk().copied().unwrap_or_default();
    let nanos = i64::from(u32::from_be_bytes(head) % 1_000_000_000);
    (seconds as i64)
        .saturating_mul(1_000_000_000)
        .saturating_add(nanos)
}

/// The name of the record of a context folder.
fn times_of(settings: &config::Build) -> String {
    let folder = match &settings.site {
        Some(site) => format!("site {}", site.dir),
        None => settings.context.clone(),
    };
    hex::encode(&Sha256::digest(folder)[..8])
}

fn gone(error: io::Error) -> BuildError {
    let why = format!("the builder stopped reading the context: {error}");
    BuildError::Engine(EngineError::Stopped(why))
}

/// A file named after the Dockerfile takes precedence over the context's `.dockerignore`.
fn rules(
    objects: &Objects,
    root: &Tree<'_>,
    dockerfile: &str,
    folder: &str,
) -> Result<Ignore, BuildError> {
    let own = format!("{dockerfile}.dockerignore");
    for name in [own, dockerfile::joined(folder, ".dockerignore")] {
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
