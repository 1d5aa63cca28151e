//! What the builder gets: a commit's folder, read from the git object database and sent as a tar.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use git2::Tree;
use tar::{EntryType, Header};

use super::BuildError;
use super::ignore::Ignore;
use super::link;
use super::objects::Objects;
use super::walk::{Kind, List, walk};
use crate::config;
use crate::source::{Commit, Mirror};

const MAX_IGNORE: u64 = 1 << 20;

/// The checked list of what is sent. Making one and sending it block.
pub struct Context {
    objects: Objects,
    pub(super) list: List,
    /// The Dockerfile's path from the context folder, behind links.
    pub(super) dockerfile: String,
    time: u64,
}

impl Context {
    /// Lists the context folder of `commit`, leaving out what its .dockerignore names, and refuses
    /// what cannot be built before the engine is asked.
    pub fn read(
        mirror: &Mirror,
        commit: &Commit,
        settings: &config::Build,
    ) -> Result<Self, BuildError> {
        let folder = within(&settings.context)?;
        let dockerfile = within(&settings.dockerfile)?;
        let objects = Objects::open(mirror)?;
        let list = {
            let root = objects.folder(&commit.tree, &folder)?;
            let (name, ignore) = rules(&objects, &root, &dockerfile)?;
            walk(&objects, root, &ignore, &[&dockerfile, &name])?
        };
        for (link, target) in &list.links {
            if link::follow(link, &list.links).is_none() {
                return Err(BuildError::LinkOut {
                    link: link.clone(),
                    target: target.clone(),
                });
            }
        }
        Ok(Self {
            dockerfile: find_dockerfile(&list, dockerfile, &settings.context)?,
            objects,
            list,
            // One time for all files: the builder's cache does not look at it, and a web server that
            // makes its ETag of time and size sees that a new commit has come.
            time: commit.time.unix_timestamp().max(0) as u64,
        })
    }

    /// How many files, folders and links are sent.
    pub fn entries(&self) -> usize {
        self.list.entries.len()
    }

    /// The files' size together, in bytes.
    pub fn size(&self) -> u64 {
        self.list.size
    }

    /// Writes the tar. The same commit and settings give the same bytes.
    pub fn send(&self, sink: impl Write) -> Result<(), BuildError> {
        let gone = |error: io::Error| BuildError::NoDocker(error.to_string());
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
                    let blob = self.objects.blob(*id, &path.to_string_lossy(), u64::MAX)?;
                    header.set_entry_type(EntryType::Regular);
                    header.set_mode(if *executable { 0o755 } else { 0o644 });
                    header.set_size(blob.size() as u64);
                    tar.append_data(&mut header, path, blob.content())
                }
                Kind::Link(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    tar.append_link(&mut header, path, OsStr::from_bytes(target))
                }
            };
            sent.map_err(gone)?;
        }
        (tar.into_inner().and_then(|mut sink| sink.flush())).map_err(gone)
    }
}

/// The rules, and the name of the file that they come from: one named after the Dockerfile goes
/// before `.dockerignore`.
fn rules(
    objects: &Objects,
    root: &Tree<'_>,
    dockerfile: &str,
) -> Result<(String, Ignore), BuildError> {
    for name in [format!("{dockerfile}.dockerignore"), ".dockerignore".into()] {
        if let Ok(entry) = root.get_path(name.as_ref())
            && entry.kind() == Some(git2::ObjectType::Blob)
        {
            let blob = objects.blob(entry.id(), &name, MAX_IGNORE)?;
            let ignore = Ignore::parse(&name, &String::from_utf8_lossy(blob.content()))?;
            return Ok((name, ignore));
        }
    }
    Ok((String::new(), Ignore::default()))
}

fn find_dockerfile(list: &List, named: String, context: &str) -> Result<String, BuildError> {
    let path = link::follow(&named, &list.links).unwrap_or_else(|| named.clone());
    let found = (list.entries.iter()).find(|entry| entry.path == path.as_bytes());
    match found.map(|entry| &entry.kind) {
        Some(Kind::File { .. }) => Ok(path),
        Some(_) => Err(BuildError::DockerfileNotAFile(named)),
        None => Err(BuildError::NoDockerfile {
            dockerfile: named,
            context: context.to_owned(),
        }),
    }
}

/// A path of the configuration: `./a//b/` is `a/b`, and one that leads out is an error.
fn within(path: &str) -> Result<String, BuildError> {
    (!path.starts_with('/'))
        .then(|| link::follow(path, &HashMap::new()))
        .flatten()
        .ok_or_else(|| BuildError::Outside(path.to_owned()))
}
