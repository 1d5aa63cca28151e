//! An app's commits, read with libgit2: a repository on this machine in place, a remote one through a
//! bare mirror. No shell and no git binary; for a repository over ssh, the system's `ssh`.

mod bare;
pub(crate) mod blob;
mod compare;
mod connection;
mod error;
mod fetch;
mod git_dir;
mod init;
mod lfs;
mod local;
mod lock;
mod mirror;
mod own;
mod progress;
mod resolve;
mod signature;
mod submodule;
mod transport;
mod warnings;

pub use bare::{message, peeled, tip};
pub use compare::Changed;
pub use error::SourceError;
pub use local::{WorkTree, is_work_tree, unsupported, work_tree};
pub use lock::{remove_mirror, rename_mirror};
pub use mirror::Mirror;
pub use resolve::can_be_named;
pub use submodule::Fetching;
pub use warnings::warnings;

pub(crate) use init::once as init;
pub(crate) use lfs::Stored;
pub(crate) use mirror::without_password;
pub(crate) use transport::ssh::key as ssh_key;

use time::OffsetDateTime;

use crate::ids::CommitId;

/// Which commit is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revision {
    /// The tip of a branch, without `refs/heads/`.
    Branch(String),
    /// What a tag points to, without `refs/tags/`.
    Tag(String),
    /// Exactly this commit.
    Commit(CommitId),
    /// The same, even if all of the history has to be fetched to get it.
    Recorded(CommitId),
    /// A person's text: a branch, a tag, either in full, or at least 7 digits of a commit, tried in
    /// this order.
    Named(String),
}

/// A commit that has been fetched, with its whole tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub id: CommitId,
    /// The id of the commit's root folder: two commits with the same tree build the same image.
    pub tree: String,
    /// The message's first line.
    pub message: String,
    /// The author's name.
    pub author: String,
    /// When it was committed.
    pub time: OffsetDateTime,
}
