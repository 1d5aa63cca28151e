//! The paths that differ between two commits.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use git2::{ObjectType, Oid, Repository, Tree, TreeEntry};

use super::resolve::{by_id, damaged};
use super::{Mirror, SourceError};
use crate::config::PathFilter;
use crate::ids::CommitId;

/// How many entries are compared at most: a few small trees, each of which lists the next many times,
/// expand to billions of paths.
const MAX_VISITED: usize = 1_000_000;
/// How long the comparison may take.
const MAX_TIME: Duration = Duration::from_secs(10);
/// How many entries are compared between two looks at the clock.
const STRIDE: usize = 1024;
/// The most folders within each other: git itself refuses longer paths.
const MAX_DEPTH: usize = 2048;

/// What differs between two commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Sorted; both names of a renamed file.
    Paths(Vec<String>),
    /// More than can be compared in reasonable time.
    TooMuch,
}

impl Mirror {
    /// The paths that differ between the trees of two commits. An error if either commit has not been
    /// fetched.
    pub fn changed_paths(&self, old: &CommitId, new: &CommitId) -> Result<Changed, SourceError> {
        let git = self.open()?;
        let tree = |id| self.tree(&git, id);
        let (old, new) = (tree(old)?, tree(new)?);
        let mut compare = Compare {
            git: &git,
            paths: Vec::new(),
            visited: 0,
            until: Instant::now() + MAX_TIME,
        };
        let whole = compare.run(old, new);
        let whole = whole.map_err(|e| damaged(&self.shown(), &e))?;
        Ok(match whole {
            true => {
                compare.paths.sort();
                Changed::Paths(compare.paths)
            }
            false => Changed::TooMuch,
        })
    }

    fn tree<'a>(&self, git: &'a Repository, id: &CommitId) -> Result<Tree<'a>, SourceError> {
        by_id(git, id, &self.shown())?;
        let commit = Oid::from_str(id.as_str()).and_then(|oid| git.find_commit(oid));
        let tree = commit.and_then(|commit| commit.tree());
        tree.map_err(|e| damaged(&self.shown(), &e))
    }
}

struct Compare<'a> {
    git: &'a Repository,
    paths: Vec<String>,
    visited: usize,
    until: Instant,
}

/// Two folders of the same path, of which one may be missing, and how far each has been read.
struct Pair<'a> {
    path: Vec<u8>,
    trees: [Option<Tree<'a>>; 2],
    next: [usize; 2],
}

impl<'a> Compare<'a> {
    /// Collects the paths that differ. `false` if that was given up. Only names, modes and ids are
    /// compared: no file is read, and folders with the same id are skipped.
    fn run(&mut self, old: Tree<'a>, new: Tree<'a>) -> Result<bool, git2::Error> {
        if old.id() == new.id() {
            return Ok(true);
        }
        // Not recursive: whoever pushed the trees decides how deep they are.
        let mut stack = vec![Pair {
            path: Vec::new(),
            trees: [Some(old), Some(new)],
            next: [0, 0],
        }];
        while let Some(pair) = stack.last_mut() {
            self.visited += 1;
            if self.visited > MAX_VISITED
                || self.paths.len() > PathFilter::MAX_CHANGED
                || (self.visited.is_multiple_of(STRIDE) && Instant::now() > self.until)
            {
                return Ok(false);
            }
            let Some(entries) = pair.step() else {
                stack.pop();
                continue;
            };
            let [old, new] = &entries;
            if let (Some(old), Some(new)) = (old, new)
                && (old.id, old.mode) == (new.id, new.mode)
            {
                continue;
            }
            let name = old.as_ref().or(new.as_ref()).map(|it| it.name.as_slice());
            let path = joined(&pair.path, name.unwrap_or_default());
            if entries.iter().flatten().any(|entry| !entry.is_folder) {
                self.paths.push(String::from_utf8_lossy(&path).into_owned());
            }
            let [old, new] = entries;
            let folder = |entry: Option<Entry>| match entry {
                Some(entry) if entry.is_folder => self.git.find_tree(entry.id).map(Some),
                _ => Ok(None),
            };
            let trees = [folder(old)?, folder(new)?];
            if trees.iter().any(Option::is_some) {
                if stack.len() >= MAX_DEPTH {
                    return Ok(false);
                }
                stack.push(Pair {
                    path,
                    trees,
                    next: [0, 0],
                });
            }
        }
        Ok(true)
    }
}

/// One entry of a folder.
struct Entry {
    name: Vec<u8>,
    id: Oid,
    mode: i32,
    is_folder: bool,
}

impl Entry {
    fn of(entry: &TreeEntry<'_>) -> Self {
        Self {
            name: entry.name_bytes().to_vec(),
            id: entry.id(),
            mode: entry.filemode(),
            is_folder: entry.kind() == Some(ObjectType::Tree),
        }
    }

    /// git sorts folders as if their names ended with `/`. Those of the same name and different kinds
    /// are therefore not next to each other, and are compared as two entries.
    fn key(&self) -> impl Iterator<Item = u8> + '_ {
        let end = self.is_folder.then_some(b'/');
        self.name.iter().copied().chain(end)
    }
}

impl Pair<'_> {
    /// The next entry of both folders, or of one if the other has none of that name and kind; `None` at
    /// their end.
    fn step(&mut self) -> Option<[Option<Entry>; 2]> {
        let [old, new] = [0, 1].map(|side| {
            let tree = self.trees[side].as_ref()?;
            tree.get(self.next[side]).map(|entry| Entry::of(&entry))
        });
        let order = match (&old, &new) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.key().cmp(new.key()),
        };
        if order.is_le() {
            self.next[0] += 1;
        }
        if order.is_ge() {
            self.next[1] += 1;
        }
        Some([old.filter(|_| order.is_le()), new.filter(|_| order.is_ge())])
    }
}

fn joined(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder {
        [] => name.to_vec(),
        _ => [folder, b"/", name].concat(),
    }
}
