//! The paths that differ between two commits.

use git2::{Delta, Diff, DiffOptions, Oid, Repository};

use super::resolve::{by_id, damaged};
use super::{Mirror, SourceError};
use crate::config::PathFilter;
use crate::ids::CommitId;

impl Mirror {
    /// The paths that differ between the trees of two commits, sorted; both names of a renamed
    /// file. At most [`PathFilter::MAX_CHANGED`] + 1, enough to tell that there are too many. An
    /// error if either commit has not been fetched.
    pub fn changed_paths(
        &self,
        old: &CommitId,
        new: &CommitId,
    ) -> Result<Vec<String>, SourceError> {
        let git = self.open()?;
        let mut paths = Vec::new();
        let diff = self.diff(&git, old, new)?;
        for delta in diff.deltas() {
            if paths.len() > PathFilter::MAX_CHANGED {
                break;
            }
            let file = match delta.status() {
                Delta::Deleted => delta.old_file(),
                _ => delta.new_file(),
            };
            let path = file.path_bytes().unwrap_or_default();
            paths.push(String::from_utf8_lossy(path).into_owned());
        }
        Ok(paths)
    }

    fn diff<'a>(
        &self,
        git: &'a Repository,
        old: &CommitId,
        new: &CommitId,
    ) -> Result<Diff<'a>, SourceError> {
        let tree = |id| {
            let oid = self.oid(git, id)?;
            (git.find_commit(oid).and_then(|commit| commit.tree()))
                .map_err(|e| damaged(&self.shown(), &e))
        };
        let (old, new) = (tree(old)?, tree(new)?);
        // Only names are compared: file contents are not read, and subtrees with the same id are
        // skipped.
        let mut options = DiffOptions::new();
        options.skip_binary_check(true).include_typechange(true);
        git.diff_tree_to_tree(Some(&old), Some(&new), Some(&mut options))
            .map_err(|e| damaged(&self.shown(), &e))
    }

    /// The id as a libgit2 type, once the commit is known to exist.
    fn oid(&self, git: &Repository, id: &CommitId) -> Result<Oid, SourceError> {
        by_id(git, id, &self.shown())?;
        Oid::from_str(id.as_str()).map_err(|e| damaged(&self.shown(), &e))
    }
}
