//! Reads what was pushed to a repository on this machine.

use std::path::Path;

use git2::{ObjectType, Oid, Repository};

use super::local;
use crate::ids::CommitId;

/// In bytes. Nobody writes a longer message by hand.
const LONGEST: usize = 64 << 10;

/// What a ref, `refs/…`, points to: for an annotated tag, the tag object. `None` if it does not exist
/// or cannot be read.
pub fn tip(repository: &Path, git_ref: &str) -> Option<CommitId> {
    let git = local::open(repository).ok()?;
    let target = git.find_reference(git_ref).ok()?.target()?;
    target.to_string().parse().ok()
}

/// The id of the commit that an annotated tag points to, or of a commit itself.
pub fn peeled(repository: &Path, id: &CommitId) -> Option<CommitId> {
    let git = local::open(repository).ok()?;
    let object = git.find_object(Oid::from_str(id.as_str()).ok()?, None);
    let commit = object.ok()?.peel(ObjectType::Commit).ok()?;
    commit.id().to_string().parse().ok()
}

/// The whole message of a commit, or of the commit that a tag points to.
pub fn message(repository: &Path, id: &CommitId) -> Option<String> {
    message_in(&local::open(repository).ok()?, id)
}

pub(super) fn message_in(git: &Repository, id: &CommitId) -> Option<String> {
    let object = git
        .find_object(Oid::from_str(id.as_str()).ok()?, None)
        .ok()?;
    let commit = object.peel(ObjectType::Commit).ok()?.into_commit().ok()?;
    let bytes = commit.message_bytes();
    Some(String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)]).into_owned())
}
