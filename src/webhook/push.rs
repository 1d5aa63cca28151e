//! What a delivery says about one ref.

use crate::ids::CommitId;

/// A ref that was created, moved or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// The repository's name as the forge knows it; for people.
    pub repository: String,
    pub git_ref: Ref,
    /// Absent for a new ref.
    pub old: Option<CommitId>,
    /// Absent for a deletion.
    pub new: Option<CommitId>,
    /// Of the newest commit.
    pub message: Option<String>,
    pub author: Option<String>,
    /// Whether the ref was moved to a commit that does not build upon the old one.
    pub forced: bool,
}

/// A name that is a branch or a tag: the two may be called the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ref {
    Branch(String),
    Tag(String),
}

impl Ref {
    /// From `refs/heads/…` or `refs/tags/…`; anything else is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let branch = text
            .strip_prefix("refs/heads/")
            .map(|name| Self::Branch(name.to_owned()));
        branch.or_else(|| {
            text.strip_prefix("refs/tags/")
                .map(|name| Self::Tag(name.to_owned()))
        })
    }
}

/// A commit id, or `None` for the 40 zeros that stand for no commit.
pub fn commit(text: &str) -> Result<Option<CommitId>, String> {
    match text.bytes().all(|byte| byte == b'0') && text.len() == 40 {
        true => Ok(None),
        false => text.parse().map(Some).map_err(|error| format!("{error}")),
    }
}
