//! A `.git` that has one commit: what `git rev-parse` and `git describe` need, and nothing of other commits.
//! The same commit with the same tags gives the same files.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use git2::{Index, ObjectType, Oid, Repository};

use super::fetch::MOST_TAGS;
use super::resolve::TAGS;
use super::submodule::Fetching;
use super::{Commit, Mirror, SourceError, lock};
use crate::config::Repo;

/// How many tags may point to each other.
const DEEPEST: usize = 8;
const MOST_FOLDERS: usize = 200_000;
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n";

impl Mirror {
    /// Writes it into an empty folder: the commit without its history, its folders, its tags, which are
    /// fetched, and an index, by which git finds that no file has changed. Blocks.
    pub(crate) fn write_git_dir(
        &self,
        commit: &Commit,
        folder: &Path,
        fetching: &Fetching<'_>,
    ) -> Result<(), SourceError> {
        let disk = |cause: io::Error| SourceError::Disk {
            path: folder.display().to_string(),
            cause,
        };
        let id = Oid::from_str(commit.id.as_str()).map_err(|error| self.unreadable(&error))?;
        let tags = self.tags(id, fetching)?;
        let packs = folder.join("objects/pack");
        fs::create_dir_all(&packs).map_err(disk)?;
        fs::create_dir_all(folder.join("refs")).map_err(disk)?;
        let git = self.open()?;
        let damaged = |error: git2::Error| self.unreadable(&error);
        pack(&git, id, &tags, &packs).map_err(damaged)?;
        let found = git.find_commit(id).map_err(damaged)?;
        let mut index = Index::open(&folder.join("index")).map_err(damaged)?;
        let tree = found.tree().map_err(damaged)?;
        let written = index.read_tree(&tree).and_then(|()| index.write());
        written.map_err(damaged)?;
        let mut refs = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
        for (name, target) in &tags {
            refs.push_str(&format!("{target} {name}\n"));
            if *target != id {
                refs.push_str(&format!("^{id}\n"));
            }
        }
        let mut files = vec![("HEAD", format!("{id}\n")), ("config", CONFIG.to_owned())];
        files.push(("packed-refs", refs));
        if found.parent_count() > 0 {
            files.push(("shallow", format!("{id}\n")));
        }
        for (name, text) in files {
            fs::write(folder.join(name), text).map_err(disk)?;
        }
        Ok(())
    }

    /// The tags of a commit, by name, and what each points to.
    fn tags(
        &self,
        commit: Oid,
        fetching: &Fetching<'_>,
    ) -> Result<Vec<(String, Oid)>, SourceError> {
        let names = match &self.repo {
            Repo::Local(_) => None,
            _ => Some(self.fetch_tags(commit, fetching)?),
        };
        let git = self.open()?;
        let mut tags = Vec::new();
        let all = git.references_glob(&format!("{TAGS}*"));
        // One that cannot be read is none of this commit's.
        for tag in all.into_iter().flatten().flatten() {
            let Ok(name) = tag.name() else { continue };
            let is_there = names.as_ref().is_none_or(|names| names.contains(name));
            let is_of = || tag.peel_to_commit().is_ok_and(|it| it.id() == commit);
            if is_there
                && let Some(target) = tag.target()
                && is_of()
            {
                tags.push((name.to_owned(), target));
            }
        }
        tags.sort();
        tags.truncate(MOST_TAGS);
        Ok(tags)
    }

    fn fetch_tags(
        &self,
        commit: Oid,
        fetching: &Fetching<'_>,
    ) -> Result<HashSet<String>, SourceError> {
        let shown = self.shown();
        let (log, cancel) = (fetching.log, fetching.cancel);
        let fetch = self.fetch_with(&shown, log, cancel, fetching.deadline);
        let _lock = lock::take(&self.folder, fetching.cancel, fetching.deadline)?;
        fetch.tags(&self.open()?, commit)
    }
}

/// Writes a pack of the commit, its folders and its tags.
fn pack(
    git: &Repository,
    commit: Oid,
    tags: &[(String, Oid)],
    into: &Path,
) -> Result<(), git2::Error> {
    let mut pack = git.packbuilder()?;
    // The bytes must not depend on how the work is divided.
    pack.set_threads(1);
    pack.insert_object(commit, None)?;
    let mut folders = vec![git.find_commit(commit)?.tree_id()];
    let mut seen: HashSet<Oid> = folders.iter().copied().collect();
    while let Some(id) = folders.pop() {
        pack.insert_object(id, None)?;
        for entry in git.find_tree(id)?.iter() {
            if entry.kind() == Some(ObjectType::Tree) && seen.insert(entry.id()) {
                folders.push(entry.id());
            }
        }
        if seen.len() > MOST_FOLDERS {
            return Err(git2::Error::from_str("it has too many folders"));
        }
    }
    for (_, target) in tags {
        let mut at = *target;
        for _ in 0..DEEPEST {
            let Ok(tag) = git.find_tag(at) else { break };
            if seen.insert(at) {
                pack.insert_object(at, None)?;
            }
            at = tag.target_id();
        }
    }
    pack.write(into, 0)
}
