//! Why a commit could not be fetched or read, and what to do about it.

use std::io;

use crate::ids::CommitId;

/// Each variant's text says what failed and why; [`SourceError::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("the repository `{repo}` cannot be reached: {why}")]
    Unreachable { repo: String, why: String },
    #[error("the server of `{repo}` ended the fetch early: {why}")]
    BrokeOff { repo: String, why: String },
    #[error("the repository `{repo}` refused access: {why}")]
    Refused { repo: String, why: String },
    #[error("the server of the repository `{repo}` gives nothing out for now: {why}")]
    Limited { repo: String, why: String },
    #[error("the identity of the server of `{repo}` could not be verified: {why}")]
    UnknownServer {
        repo: String,
        why: String,
        hint: String,
    },
    #[error("the repository `{repo}` is empty: it has no branches or tags")]
    Empty { repo: String },
    #[error("the repository `{repo}` has no {what} `{name}`{aside}")]
    NoSuchRef {
        repo: String,
        what: &'static str,
        name: String,
        /// What may have been meant.
        aside: String,
    },
    #[error("`{0}` is not a valid name for a branch or tag")]
    InvalidRef(String),
    #[error("the commit `{id}` is not in the repository `{repo}`")]
    NoSuchCommit { repo: String, id: CommitId },
    #[error("`{0}` is ambiguous: the id of more than one commit begins with it")]
    Ambiguous(String),
    #[error("the mirror of `{repo}` is damaged: {why}")]
    MirrorDamaged { repo: String, why: String },
    #[error("the repository `{repo}` is damaged: {why}")]
    RepositoryDamaged { repo: String, why: String },
    #[error("the repository `{repo}` is not supported: {why}")]
    Unsupported { repo: String, why: String },
    #[error("failed to write the mirror at `{path}`: {cause}")]
    Disk { path: String, cause: io::Error },
    #[error("the submodule `{path}` is not fetched: {why}")]
    Submodule {
        path: String,
        why: String,
        hint: String,
    },
    #[error("the submodule `{path}`: {error}")]
    InSubmodule {
        path: String,
        error: Box<SourceError>,
    },
    #[error("the commit `{}` is not signed as `source.require_signature` wants: {why}", .id.short())]
    Unsigned { id: CommitId, why: String },
    #[error("the fetch was cancelled")]
    Cancelled,
    #[error("the fetch from `{repo}` timed out")]
    TimedOut { repo: String },
}

impl SourceError {
    /// A short name for programs, as the API's `error.code`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "source_unreachable",
            Self::BrokeOff { .. } => "source_broke_off",
            Self::Refused { .. } => "source_refused",
            Self::Limited { .. } => "source_limited",
            Self::UnknownServer { .. } => "source_unknown_server",
            Self::Empty { .. } => "source_empty",
            Self::NoSuchRef { .. } => "no_such_ref",
            Self::InvalidRef(_) => "invalid_ref",
            Self::NoSuchCommit { .. } => "no_such_commit",
            Self::Ambiguous(_) => "ambiguous_commit",
            Self::MirrorDamaged { .. } => "mirror_damaged",
            Self::RepositoryDamaged { .. } => "repository_damaged",
            Self::Unsupported { .. } => "repository_unsupported",
            Self::Disk { .. } => "mirror_disk",
            Self::Submodule { .. } => "submodule",
            Self::InSubmodule { error, .. } => error.code(),
            Self::Unsigned { .. } => "unsigned",
            Self::Cancelled => "cancelled",
            Self::TimedOut { .. } => "fetch_timeout",
        }
    }

    /// What to do next.
    pub fn hint(&self) -> &str {
        match self {
            Self::Unreachable { .. } => {
                "check `repo` in deploy.toml, and that this machine can reach it"
            }
            Self::BrokeOff { .. } => {
                "deploy again; if it happens again, check the repository on the server with `git fsck`"
            }
            Self::Refused { .. } => {
                "check the app's `source.token` (https) or `source.ssh_key` (ssh) in deploy.toml, and that it may read the repository"
            }
            Self::Limited { .. } => {
                "deploy again later; if it stays, look at the account's quota and limits at whoever runs the server"
            }
            Self::UnknownServer { hint, .. } => hint,
            Self::Empty { .. } => "push a branch first",
            Self::NoSuchRef { .. } => "check the spelling, and whether it was pushed",
            Self::InvalidRef(_) => "give a branch, a tag, or at least 7 digits of a commit",
            Self::NoSuchCommit { .. } => {
                "check whether it was pushed; a force-push may have removed it since"
            }
            Self::Ambiguous(_) => "give more digits of the commit",
            Self::MirrorDamaged { .. } => "deploy again: the mirror will be created anew",
            Self::RepositoryDamaged { .. } => "check the repository with `git fsck`",
            Self::Unsupported { .. } => "then deploy again",
            Self::Disk { .. } => "check the free disk space and the permissions of `data_dir`",
            Self::Submodule { hint, .. } => hint,
            Self::InSubmodule { error, .. } => error.hint(),
            Self::Unsigned { .. } => {
                "sign it (`git config gpg.format ssh`, `git commit -S`) with a key that deploy.toml lists, and push again"
            }
            Self::Cancelled => "deploy again when ready",
            Self::TimedOut { .. } => "deploy again; if it stays slow, check the network",
        }
    }
}
