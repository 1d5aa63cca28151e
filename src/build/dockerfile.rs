//! The Dockerfile: found in the commit, and served in a folder of its own.

use std::io::{self, Write};
use std::sync::Arc;

use git2::{ObjectType, Oid, Tree};

use super::BuildError;
use super::link;
use super::objects::{FOLDER, LINK, Objects};
use super::walk::MAX_PATH;
use crate::engine::files::{FileEntry, FileKind, Files};

const MAX_DOCKERFILE: u64 = 1 << 20;
/// Its name where none is configured.
const USUAL: &str = "Dockerfile";
/// What Docker takes where there is none of that name.
const OTHER: &str = "dockerfile";
/// The builder gets files without those that are ignored; without any rules it would look for some.
const NO_RULES: &[u8] = b"# applied by Cutover\n";

pub(super) struct Dockerfile {
    /// Its path from the repository's root, as it is called.
    pub(super) named: String,
    pub(super) id: Oid,
    pub(super) text: Vec<u8>,
}

impl Dockerfile {
    /// One that is in no repository.
    pub(super) fn made(text: String) -> Self {
        let text = text.into_bytes();
        Self {
            named: USUAL.to_owned(),
            id: Oid::hash_object(ObjectType::Blob, &text).unwrap_or(Oid::ZERO_SHA1),
            text,
        }
    }
}

/// Finds it from the repository's root or, if it is not there, below the context's folder. One that is
/// not configured is looked for in the context first.
pub(super) fn find(
    objects: &Objects,
    root: &Tree<'_>,
    configured: Option<&str>,
    folder: &str,
) -> Result<Dockerfile, BuildError> {
    let places = match configured {
        Some(path) => vec![path.to_owned(), joined(folder, path)],
        None => [folder, ""]
            .into_iter()
            .flat_map(|folder| [USUAL, OTHER].map(|name| joined(folder, name)))
            .collect(),
    };
    for named in places {
        let path = followed(objects, root, &named)?;
        let Ok(entry) = root.get_path(path.as_ref()) else {
            continue;
        };
        if entry.filemode() == FOLDER {
            return Err(BuildError::DockerfileNotAFile(named));
        }
        let id = entry.id();
        let text = objects.blob(id, &named, MAX_DOCKERFILE)?.content().to_vec();
        return Ok(Dockerfile { named, id, text });
    }
    Err(BuildError::NoDockerfile {
        dockerfile: configured.unwrap_or(USUAL).to_owned(),
        context: match folder {
            "" => ".".to_owned(),
            folder => folder.to_owned(),
        },
    })
}

/// Resolves the links of `path`, which is about to be read. All other links are sent as they are.
pub(super) fn followed(
    objects: &Objects,
    root: &Tree<'_>,
    path: &str,
) -> Result<String, BuildError> {
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

/// A path below a folder, which is empty for the root.
pub(super) fn joined(folder: &str, path: &str) -> String {
    match folder {
        "" => path.to_owned(),
        folder => format!("{folder}/{path}"),
    }
}

/// The Dockerfile and no rules beside it.
pub(super) struct Folder {
    entries: Arc<[FileEntry]>,
    text: Vec<u8>,
}

impl Folder {
    pub(super) fn of(dockerfile: &Dockerfile, time: i64) -> Self {
        let file = |path: String, content: &[u8]| FileEntry {
            path: path.into_bytes(),
            time,
            kind: FileKind::File {
                size: content.len() as u64,
                executable: false,
            },
        };
        let named = &dockerfile.named;
        let slashes = named.match_indices('/').map(|(at, _)| at);
        let folders = slashes.map(|at| FileEntry {
            path: named[..at].into(),
            time: 0,
            kind: FileKind::Folder,
        });
        let files = [
            file(named.clone(), &dockerfile.text),
            file(format!("{named}.dockerignore"), NO_RULES),
        ];
        Self {
            entries: folders.chain(files).collect(),
            text: dockerfile.text.clone(),
        }
    }
}

impl Files for Folder {
    fn entries(&self) -> Arc<[FileEntry]> {
        self.entries.clone()
    }

    fn content(&mut self, place: usize, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(match place + 1 == self.entries.len() {
            true => NO_RULES,
            false => &self.text,
        })
    }

    fn dockerfile(&self) -> Option<String> {
        None
    }

    fn tar(&mut self, _: Option<&str>, _: &mut dyn Write) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
