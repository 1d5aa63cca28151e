//! The list of what a folder of a commit holds, without what .dockerignore names.

use std::collections::{BTreeSet, HashMap, HashSet};

use git2::{Oid, Tree};

use super::BuildError;
use super::ignore::{Fits, Ignore};
use super::objects::Objects;

// git knows these modes and no others.
pub(super) const FOLDER: i32 = 0o040000;
pub(super) const EXECUTABLE: i32 = 0o100755;
const LINK: i32 = 0o120000;
const SUBMODULE: i32 = 0o160000;

// Far above what images are built from, far below what would exhaust a small server.
const MAX_ENTRIES: usize = 200_000;
const MAX_TOTAL: u64 = 4 << 30;
const MAX_PATH: usize = 4096;

#[derive(Debug)]
pub(super) struct Entry {
    /// From the context folder; file names are bytes.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Folder,
    File { id: Oid, executable: bool },
    Link(Vec<u8>),
}

#[derive(Default)]
pub(super) struct List {
    /// Folders stand before what is in them.
    pub(super) entries: Vec<Entry>,
    /// The symbolic links among them, path -> target.
    pub(super) links: HashMap<String, String>,
    /// The files' size together, in bytes.
    pub(super) size: u64,
}

struct Folder<'a> {
    tree: Tree<'a>,
    next: usize,
    path: Vec<u8>,
    fits: Fits,
}

/// Lists `root`. What stands in `always` is listed whatever the rules say.
pub(super) fn walk(
    objects: &Objects,
    root: Tree<'_>,
    ignore: &Ignore,
    always: &[&str],
) -> Result<List, BuildError> {
    let mut list = List::default();
    // Not recursive: a tree may be as deep as whoever pushed it likes.
    let mut stack = vec![Folder {
        tree: root,
        next: 0,
        path: Vec::new(),
        fits: Fits::default(),
    }];
    while let Some(folder) = stack.last_mut() {
        let Some(entry) = folder.tree.get(folder.next) else {
            stack.pop();
            continue;
        };
        folder.next += 1;
        let (id, mode) = (entry.id(), entry.filemode());
        let path = joined(&folder.path, entry.name_bytes())?;
        drop(entry);
        let text = String::from_utf8_lossy(&path).into_owned();
        let (excluded, fits) = ignore.excludes(&text, &folder.fits);
        if mode == FOLDER {
            let above = |kept: &&str| kept.strip_prefix(&text).is_some_and(|p| p.starts_with('/'));
            if !excluded {
                list.push(path.clone(), Kind::Folder)?;
            } else if !ignore.has_exceptions() && !always.iter().any(above) {
                continue;
            }
            stack.push(Folder {
                tree: objects.tree(id)?,
                next: 0,
                path,
                fits,
            });
        } else if !excluded || always.contains(&text.as_str()) {
            list.add(objects, path, text, id, mode)?;
        }
    }
    list.add_parents();
    Ok(list)
}

impl List {
    fn add(
        &mut self,
        objects: &Objects,
        path: Vec<u8>,
        text: String,
        id: Oid,
        mode: i32,
    ) -> Result<(), BuildError> {
        let kind = match mode {
            SUBMODULE => return Err(BuildError::Submodule(text)),
            LINK => {
                let target = objects.blob(id, &text, MAX_PATH as u64)?.content().to_vec();
                (self.links).insert(text, String::from_utf8_lossy(&target).into_owned());
                Kind::Link(target)
            }
            mode => {
                self.size += objects.size(id, &text, u64::MAX)?;
                if self.size > MAX_TOTAL {
                    return Err(BuildError::TooLarge("its files are over 4 GiB".into()));
                }
                let executable = mode == EXECUTABLE;
                Kind::File { id, executable }
            }
        };
        self.push(path, kind)
    }

    fn push(&mut self, path: Vec<u8>, kind: Kind) -> Result<(), BuildError> {
        if self.entries.len() >= MAX_ENTRIES {
            let message = format!("it has more than {MAX_ENTRIES} files");
            return Err(BuildError::TooLarge(message));
        }
        self.entries.push(Entry { path, kind });
        Ok(())
    }

    /// An exception may have brought a file back whose folder is excluded: the folder is listed
    /// after all, so that it gets the same mode as every other.
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
        // Sorted, a folder stands before those within it.
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
    // git itself never writes such a name; whoever writes objects by hand may.
    let bad = matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0);
    if bad || path.len() > MAX_PATH {
        let shown = String::from_utf8_lossy(&path).chars().take(200).collect();
        return Err(BuildError::BadName(shown));
    }
    Ok(path)
}
