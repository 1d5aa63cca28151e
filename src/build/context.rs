//! The build context: a commit's folder, read from the git object database and sent as a tar.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use git2::Tree;
use tar::{EntryType, Header};
use tokio_util::sync::CancellationToken;

use super::BuildError;
use super::bases::bases;
use super::ignore::Ignore;
use super::lfs::Lfs;
use super::link;
use super::objects::{FOLDER, LINK, Objects};
use super::walk::{Kind, List, MAX_PATH, Walk};
use crate::config;
use crate::engine::EngineError;
use crate::source::{Commit, Mirror};

const MAX_IGNORE: u64 = 1 << 20;
const MAX_DOCKERFILE: u64 = 1 << 20;

/// The checked list of what is sent to the builder. Reading and sending it block.
pub struct Context {
    objects: Objects,
    pub(super) list: List,
    /// The Dockerfile's path relative to the context folder, with links resolved.
    pub(super) dockerfile: String,
    /// The images that the Dockerfile names; `None` if only the builder knows.
    pub(super) bases: Option<BTreeSet<String>>,
    /// Whether the Dockerfile seems to contain here-documents.
    pub(super) here_documents: bool,
    time: u64,
}

impl Context {
    /// Lists the context folder of `commit` without what its .dockerignore excludes. What cannot be
    /// built is refused here, before the engine is involved.
    pub fn read(
        mirror: &Mirror,
        commit: &Commit,
        settings: &config::Build,
    ) -> Result<Self, BuildError> {
        Self::read_until(&CancellationToken::new(), mirror, commit, settings)
    }

    /// Like [`Context::read`], but gives up when `stop` is cancelled.
    pub fn read_until(
        stop: &CancellationToken,
        mirror: &Mirror,
        commit: &Commit,
        settings: &config::Build,
    ) -> Result<Self, BuildError> {
        let folder = within(&settings.context)?;
        let dockerfile = within(&settings.dockerfile)?;
        let objects = Objects::open(mirror)?;
        let (list, dockerfile, text) = {
            let root = objects.folder(&commit.tree, &folder)?;
            let (name, ignore) = rules(&objects, &root, &dockerfile)?;
            let found = find_dockerfile(&objects, &root, &dockerfile, &settings.context)?;
            let walk = Walk {
                objects: &objects,
                ignore: &ignore,
                always: &[&dockerfile, &found, &name],
                folder: &folder,
                lfs: Lfs::above(&objects, &commit.tree, &folder)?,
                stop,
            };
            let text = (root.get_path(found.as_ref()).ok())
                .and_then(|entry| objects.blob(entry.id(), &found, MAX_DOCKERFILE).ok())
                .map(|blob| String::from_utf8_lossy(blob.content()).into_owned());
            (walk.list(root)?, found, text)
        };
        Ok(Self {
            dockerfile,
            bases: text.as_ref().and_then(|text| bases(text, &settings.args)),
            here_documents: text.is_some_and(|text| text.contains("<<")),
            objects,
            list,
            // One time for all files: the builder's cache ignores it, and a web server that derives
            // its ETags from time and size notices a new commit.
            time: commit.time.unix_timestamp().max(0) as u64,
        })
    }

    /// How many files, folders and links are sent.
    pub fn entries(&self) -> usize {
        self.list.entries.len()
    }

    /// The total size of the files, in bytes.
    pub fn size(&self) -> u64 {
        self.list.size
    }

    /// Writes the tar. The same commit and settings give the same bytes.
    pub fn send(&self, sink: impl Write) -> Result<(), BuildError> {
        let gone = |error: io::Error| {
            let why = format!("the builder stopped reading the context: {error}");
            BuildError::Engine(EngineError::Stopped(why))
        };
        let mut tar = tar::Builder::new(sink);
        for entry in &self.list.entries {
            let path = Path::new(OsStr::from_bytes(&entry.path));
            let mut header = Header::new_gnu();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(self.time);
            header.set_size(0);
            let sent = match &entry.kind {
                Kind::Folder => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(0o755);
                    tar.append_data(&mut header, path, io::empty())
                }
                Kind::File { id, executable } => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_mode(if *executable { 0o755 } else { 0o644 });
                    let name = path.to_string_lossy();
                    (self.objects).content(*id, &name, |size, content| {
                        header.set_size(size);
                        tar.append_data(&mut header, path, content)
                    })?
                }
                Kind::Link(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
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
}

/// The rules, and the name of the file that they come from: one named after the Dockerfile takes
/// precedence over `.dockerignore`.
fn rules(
    objects: &Objects,
    root: &Tree<'_>,
    dockerfile: &str,
) -> Result<(String, Ignore), BuildError> {
    for name in [format!("{dockerfile}.dockerignore"), ".dockerignore".into()] {
        let path = followed(objects, root, &name)?;
        if let Ok(entry) = root.get_path(path.as_ref())
            && entry.kind() == Some(git2::ObjectType::Blob)
        {
            let blob = objects.blob(entry.id(), &name, MAX_IGNORE)?;
            let ignore = Ignore::parse(&name, &String::from_utf8_lossy(blob.content()))?;
            return Ok((name, ignore));
        }
    }
    Ok((String::new(), Ignore::default()))
}

/// The Dockerfile's path, with links resolved.
fn find_dockerfile(
    objects: &Objects,
    root: &Tree<'_>,
    named: &str,
    context: &str,
) -> Result<String, BuildError> {
    let path = followed(objects, root, named)?;
    match root.get_path(path.as_ref()).map(|entry| entry.filemode()) {
        Ok(FOLDER) => Err(BuildError::DockerfileNotAFile(named.to_owned())),
        Ok(_) => Ok(path),
        Err(_) => Err(BuildError::NoDockerfile {
            dockerfile: named.to_owned(),
            context: context.to_owned(),
        }),
    }
}

/// Resolves the links of `path`, which is about to be read. All other links are sent as they are.
fn followed(objects: &Objects, root: &Tree<'_>, path: &str) -> Result<String, BuildError> {
    let target = |path: &str| {
        let entry = root.get_path(path.as_ref()).ok()?;
        let is_link = entry.filemode() == LINK;
        let blob = (is_link.then(|| objects.blob(entry.id(), path, MAX_PATH as u64)))?.ok()?;
        Some(String::from_utf8_lossy(blob.content()).into_owned())
    };
    link::follow(path, target).ok_or_else(|| BuildError::LinkOut {
        link: path.to_owned(),
        target: target(path).unwrap_or_default(),
    })
}

/// Normalizes a configured path: `./a//b/` becomes `a/b`, and one that leads out is an error.
fn within(path: &str) -> Result<String, BuildError> {
    (!path.starts_with('/'))
        .then(|| link::follow(path, |_| None))
        .flatten()
        .ok_or_else(|| BuildError::Outside(path.to_owned()))
}
