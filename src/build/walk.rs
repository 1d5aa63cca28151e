//! Lists the contents of a commit's folder, without what .dockerignore excludes.

use std::collections::{BTreeSet, HashSet};

use git2::{Oid, Tree};
use tokio_util::sync::CancellationToken;

use super::BuildError;
use super::ignore::{Fits, Ignore};
use super::lfs::Lfs;
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
    },
    Link(Vec<u8>),
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

/// Decides which files of a context are listed.
pub(super) struct Walk<'a> {
    pub(super) objects: &'a Objects,
    pub(super) ignore: &'a Ignore,
    /// The context's folder in the repository.
    pub(super) folder: &'a str,
    pub(super) lfs: Lfs,
    /// Cancelled when nobody waits for the list any more.
    pub(super) stop: &'a CancellationToken,
}

impl Walk<'_> {
    pub(super) fn list(mut self, root: Tree<'_>) -> Result<List, BuildError> {
        let mut list = List::default();
        let mut pointers = Vec::new();
        self.lfs.enter(self.objects, &root, &self.full("", true))?;
        // Not recursive: whoever pushed the tree decides how deep it is.
        let mut stack = vec![Folder {
            tree: root,
            next: 0,
            path: Vec::new(),
            fits: Fits::default(),
        }];
        let mut visited = 0;
        while let Some(folder) = stack.last_mut() {
            let Some(entry) = folder.tree.get(folder.next) else {
                stack.pop();
                continue;
            };
            folder.next += 1;
            visited += 1;
            if visited > MAX_VISITED {
                let message = format!("with what is ignored it has more than {MAX_VISITED} files");
                return Err(BuildError::TooLarge(message));
            }
            if visited % STRIDE == 0 && self.stop.is_cancelled() {
                return Err(BuildError::Cancelled);
            }
            let (id, mode) = (entry.id(), entry.filemode());
            let path = joined(&folder.path, entry.name_bytes())?;
            drop(entry);
            let text = String::from_utf8_lossy(&path).into_owned();
            let (excluded, fits) = self.ignore.excludes(&text, &folder.fits);
            if mode == FOLDER {
                if !excluded {
                    list.push(path.clone(), Kind::Folder)?;
                } else if !self.ignore.has_exceptions() {
                    continue;
                }
                let tree = self.objects.tree(id)?;
                self.lfs
                    .enter(self.objects, &tree, &self.full(&text, true))?;
                stack.push(Folder {
                    tree,
                    next: 0,
                    path,
                    fits,
                });
            } else if !excluded
                && list.add(self.objects, path, &text, id, mode)?
                && self.is_pointer(&text, id)?
            {
                pointers.push(text);
            }
        }
        if !pointers.is_empty() {
            return Err(BuildError::Lfs(pointers));
        }
        list.add_parents();
        Ok(list)
    }

    fn is_pointer(&self, path: &str, id: Oid) -> Result<bool, BuildError> {
        let content = || Ok(self.objects.blob(id, path, u64::MAX)?.content().to_vec());
        let size = self.objects.size(id)?;
        self.lfs.is_pointer(&self.full(path, false), size, content)
    }

    /// A path of the context as one of the repository; a folder ends with `/`.
    fn full(&self, path: &str, is_folder: bool) -> String {
        let parts = [self.folder, path].into_iter();
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
    /// Adds a file or link and returns whether it is a file. A submodule is an error.
    fn add(
        &mut self,
        objects: &Objects,
        path: Vec<u8>,
        text: &str,
        id: Oid,
        mode: i32,
    ) -> Result<bool, BuildError> {
        let kind = match mode {
            SUBMODULE => return Err(BuildError::Submodule(text.to_owned())),
            LINK => Kind::Link(objects.blob(id, text, MAX_PATH as u64)?.content().to_vec()),
            mode => {
                let size = objects.size(id)?;
                self.size += size;
                if self.size > MAX_TOTAL {
                    return Err(BuildError::TooLarge("its files exceed 4 GiB".into()));
                }
                let executable = mode == EXECUTABLE;
                Kind::File {
                    id,
                    size,
                    executable,
                }
            }
        };
        let is_file = matches!(kind, Kind::File { .. });
        self.push(path, kind).map(|()| is_file)
    }

    fn push(&mut self, path: Vec<u8>, kind: Kind) -> Result<(), BuildError> {
        if self.entries.len() >= MAX_ENTRIES {
            let message = format!("it has more than {MAX_ENTRIES} files");
            return Err(BuildError::TooLarge(message));
        }
        self.entries.push(Entry { path, kind });
        Ok(())
    }

    /// If an exception re-included a file whose folder is excluded, the folder is listed after all,
    /// so that it gets the same mode as the others.
    fn add_parents(&mut self) {
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
