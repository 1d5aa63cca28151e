//! Lists the contents of a commit's folder, without what .dockerignore excludes.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use git2::{ObjectType, Oid, Tree};
use tokio_util::sync::CancellationToken;

use super::BuildError;
use super::attributes::{Attributed, Attributes};
use super::convert::converted;
use super::ignore::{Fits, Ignore};
use super::lfs::{Pointer, pointer};
use super::objects::{EXECUTABLE, FOLDER, LINK, Objects, SUBMODULE};

// Far above what images are built from, far below what would exhaust a small server's memory.
const MAX_ENTRIES: usize = 200_000;
/// Includes excluded entries: a few small trees, each of which lists the next many times, expand to
/// billions of paths.
const MAX_VISITED: usize = 1_000_000;
/// How many entries are visited between two checks for cancellation.
const STRIDE: usize = 1024;
/// The total size of the files, in bytes.
const MAX_TOTAL: u64 = 4 << 30;
/// A larger file stays as git holds it, in bytes.
const MAX_CONVERTED: u64 = 64 << 20;
/// The length of a path or of a link's target, in bytes.
pub(super) const MAX_PATH: usize = 4096;

#[derive(Debug)]
pub(super) struct Entry {
    /// Relative to the context folder. Bytes, because file names need not be UTF-8.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Folder,
    File {
        id: Oid,
        size: u64,
        executable: bool,
        place: Place,
        /// When it last changed, in seconds since 1970.
        time: u64,
    },
    Link(Vec<u8>),
}

/// Where a file's content is.
#[derive(Debug)]
pub(super) enum Place {
    /// In the repository of this number.
    Part(usize),
    /// There too, but a checkout has it in another form.
    Converted {
        part: usize,
        id: Oid,
        how: Attributed,
    },
    Stored(PathBuf),
    /// Part of this program.
    Own(&'static [u8]),
}

#[derive(Default)]
pub(super) struct List {
    /// Folders come before their contents.
    pub(super) entries: Vec<Entry>,
    /// The total size of the files, in bytes.
    pub(super) size: u64,
}

struct Folder<'a> {
    tree: Tree<'a>,
    next: usize,
    path: Vec<u8>,
    fits: Fits,
}

/// A repository that the context is made of: the app's own, or a submodule's.
pub(super) struct Part {
    pub(super) objects: Objects,
    /// The root folder of its commit.
    pub(super) root: Oid,
    /// The folder of it that is in the context; empty for all of it.
    pub(super) folder: String,
    /// Where that is in the context; empty for the context itself.
    pub(super) path: Vec<u8>,
    pub(super) fits: Fits,
    /// How many submodules it is in.
    pub(super) depth: usize,
}

/// What a part leaves to be looked at: it is elsewhere.
#[derive(Default)]
pub(super) struct Elsewhere {
    pub(super) submodules: Vec<Submodule>,
    /// The places in the list of files that are only pointers.
    pub(super) pointers: Vec<(usize, Pointer)>,
}

pub(super) struct Submodule {
    /// From the root of the repository that records it.
    pub(super) named: String,
    /// In the context.
    pub(super) path: Vec<u8>,
    pub(super) commit: Oid,
    pub(super) fits: Fits,
}

/// Decides which files of a context are listed.
pub(super) struct Walk<'a> {
    pub(super) ignore: &'a Ignore,
    /// Cancelled when nobody waits for the list any more.
    pub(super) stop: &'a CancellationToken,
    pub(super) list: List,
    pub(super) visited: usize,
}

impl Walk<'_> {
    /// Lists the files of a part, the `number`th.
    pub(super) fn part(&mut self, part: &Part, number: usize) -> Result<Elsewhere, BuildError> {
        let objects = &part.objects;
        let root = objects.folder(&part.root.to_string(), &part.folder)?;
        let mut found = Elsewhere::default();
        let mut attributes = Attributes::above(objects, &part.root.to_string(), &part.folder)?;
        attributes.enter(objects, &root, &part.full(&part.path, true))?;
        // Not recursive: whoever pushed the tree decides how deep it is.
        let mut stack = vec![Folder {
            tree: root,
            next: 0,
            path: part.path.clone(),
            fits: part.fits.clone(),
        }];
        while let Some(folder) = stack.last_mut() {
            let Some(entry) = folder.tree.get(folder.next) else {
                stack.pop();
                continue;
            };
            folder.next += 1;
            self.visited += 1;
            if self.visited > MAX_VISITED {
                let message = format!("with what is ignored it has more than {MAX_VISITED} files");
                return Err(BuildError::TooLarge(message));
            }
            if self.visited.is_multiple_of(STRIDE) && self.stop.is_cancelled() {
                return Err(BuildError::Cancelled);
            }
            let (id, mode) = (entry.id(), entry.filemode());
            let path = joined(&folder.path, entry.name_bytes())?;
            drop(entry);
            let text = String::from_utf8_lossy(&path).into_owned();
            let (excluded, fits) = self.ignore.excludes(&text, &folder.fits);
            if mode == FOLDER {
                if !excluded {
                    self.list.push(path.clone(), Kind::Folder)?;
                } else if !self.ignore.has_exceptions() {
                    continue;
                }
                let tree = objects.tree(id)?;
                attributes.enter(objects, &tree, &part.full(&path, true))?;
                stack.push(Folder {
                    tree,
                    next: 0,
                    path,
                    fits,
                });
            } else if mode == SUBMODULE {
                if !excluded {
                    self.list.push(path.clone(), Kind::Folder)?;
                }
                if !excluded || self.ignore.readmits_below(&text) {
                    found.submodules.push(Submodule {
                        named: part.full(&path, false),
                        path,
                        commit: id,
                        fits,
                    });
                }
            } else if !excluded {
                let full = part.full(&path, false);
                let is_file = self.list.add(objects, path, &text, id, mode, number)?;
                if !is_file {
                    continue;
                }
                let (at, how) = (self.list.entries.len() - 1, attributes.of(&full)?);
                let size = objects.size(id)?;
                let content = || Ok(objects.blob(id, &full, MAX_CONVERTED)?.content().to_vec());
                if how.lfs
                    && let Some(pointer) = pointer(size, content)?
                {
                    found.pointers.push((at, pointer));
                } else if how.converts()
                    && size <= MAX_CONVERTED
                    && let Some(content) = converted(id, &content()?, how)
                {
                    let part = number;
                    let place = Place::Converted { part, id, how };
                    self.list.converted(at, place, &content)?;
                }
            }
        }
        Ok(found)
    }
}

impl Part {
    /// A path of the context as one of this repository; a folder ends with `/`.
    fn full(&self, path: &[u8], is_folder: bool) -> String {
        let below = path.get(self.path.len()..).unwrap_or_default();
        let below = String::from_utf8_lossy(below);
        let parts = [self.folder.as_str(), below.trim_start_matches('/')].into_iter();
        let mut full = (parts.filter(|part| !part.is_empty()))
            .collect::<Vec<_>>()
            .join("/");
        if is_folder && !full.is_empty() {
            full.push('/');
        }
        full
    }
}

impl List {
    /// Adds a file or link and returns whether it is a file.
    fn add(
        &mut self,
        objects: &Objects,
        path: Vec<u8>,
        text: &str,
        id: Oid,
        mode: i32,
        part: usize,
    ) -> Result<bool, BuildError> {
        let kind = match mode {
            LINK => Kind::Link(objects.blob(id, text, MAX_PATH as u64)?.content().to_vec()),
            mode => {
                let size = objects.size(id)?;
                self.grow(size)?;
                let executable = mode == EXECUTABLE;
                Kind::File {
                    id,
                    size,
                    executable,
                    place: Place::Part(part),
                    time: 0,
                }
            }
        };
        let is_file = matches!(kind, Kind::File { .. });
        self.push(path, kind).map(|()| is_file)
    }

    /// The file at this place in the list has this size, although it is not in git.
    pub(super) fn of_size(&mut self, at: usize, bytes: u64) -> Result<(), BuildError> {
        if let Some(Kind::File { size, .. }) = self.kind(at) {
            *size = bytes;
        }
        self.grow(bytes)
    }

    /// A checkout has the file at this place in the list with this content.
    fn converted(&mut self, at: usize, as_it_is: Place, content: &[u8]) -> Result<(), BuildError> {
        let mut grown = 0;
        if let Some(Kind::File {
            id, size, place, ..
        }) = self.kind(at)
        {
            let converted = content.len() as u64;
            grown = converted.saturating_sub(*size);
            *size = converted;
            *id = Oid::hash_object(ObjectType::Blob, content).unwrap_or(*id);
            *place = as_it_is;
        }
        self.grow(grown)
    }

    /// It is there.
    pub(super) fn stored(&mut self, at: usize, file: PathBuf) {
        if let Some(Kind::File { place, .. }) = self.kind(at) {
            *place = Place::Stored(file);
        }
    }

    fn kind(&mut self, at: usize) -> Option<&mut Kind> {
        self.entries.get_mut(at).map(|entry| &mut entry.kind)
    }

    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), BuildError> {
        self.size = self.size.saturating_add(bytes);
        match self.size > MAX_TOTAL {
            true => Err(BuildError::TooLarge("its files exceed 4 GiB".into())),
            false => Ok(()),
        }
    }

    pub(super) fn push(&mut self, path: Vec<u8>, kind: Kind) -> Result<(), BuildError> {
        if self.entries.len() >= MAX_ENTRIES {
            let message = format!("it has more than {MAX_ENTRIES} files");
            return Err(BuildError::TooLarge(message));
        }
        self.entries.push(Entry { path, kind });
        Ok(())
    }

    /// If an exception re-included a file whose folder is excluded, the folder is listed after all,
    /// so that it gets the same mode as the others.
    pub(super) fn add_parents(&mut self) {
        let listed: HashSet<&[u8]> = (self.entries.iter())
            .filter(|entry| matches!(entry.kind, Kind::Folder))
            .map(|entry| entry.path.as_slice())
            .collect();
        let mut missing = BTreeSet::new();
        for entry in &self.entries {
            let mut path = entry.path.as_slice();
            while let Some(slash) = path.iter().rposition(|byte| *byte == b'/') {
                path = &path[..slash];
                if listed.contains(path) || !missing.insert(path.to_vec()) {
                    break;
                }
            }
        }
        // Sorting puts a folder before those within it.
        let kind = || Kind::Folder;
        let missing = missing.into_iter().map(|path| Entry { path, kind: kind() });
        self.entries.splice(0..0, missing);
    }
}

fn joined(folder: &[u8], name: &[u8]) -> Result<Vec<u8>, BuildError> {
    let mut path = folder.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    // git itself never writes such a name, but objects can be written by hand.
    let bad = matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0);
    if bad || path.len() > MAX_PATH {
        let shown = String::from_utf8_lossy(&path).chars().take(200).collect();
        return Err(BuildError::BadName(shown));
    }
    Ok(path)
}
