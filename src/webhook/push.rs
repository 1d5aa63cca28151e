//! The content of a delivery, and the limits that keep its text harmless.

use std::fmt;

use super::Refusal;
use crate::ids::CommitId;
use crate::printable::printable;

/// The content of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The forge is testing the webhook.
    Ping,
    /// At least one, in the forge's order.
    Pushes(Vec<Push>),
    /// Nothing that can be deployed; says why.
    Ignored(String),
}

/// One ref that moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// As the forge names it, e.g. `acme/hello`; empty if it does not. Not compared with anything.
    pub repository: String,
    pub git_ref: Ref,
    /// `None`: the ref is new.
    pub old: Option<CommitId>,
    /// `None`: the ref was deleted. For a tag, the commit if the forge names it, otherwise the tag
    /// object.
    pub new: Option<CommitId>,
    /// The commit that it points to now, if the forge names it. The `new` of a tag may be the tag object.
    pub commit: Option<CommitId>,
    /// The head commit's message, if the forge includes it; control characters replaced, at most 8 KiB.
    pub message: Option<String>,
    /// The head commit's author's name.
    pub author: Option<String>,
    /// The account that pushed, as the forge names it.
    pub pusher: Option<String>,
    /// Whether the forge reports a force-push. Not every forge does.
    pub forced: bool,
    /// Whether the pusher asked with an option that nothing is run for it.
    pub skip: bool,
}

/// The commit that a ref points to: a tag's is known only where the forge names it.
pub(super) fn points_to(
    git_ref: &Ref,
    new: &Option<CommitId>,
    named: Option<&str>,
) -> Result<Option<CommitId>, Refusal> {
    match git_ref {
        Ref::Branch(_) => Ok(new.clone()),
        Ref::Tag(_) => Ok(commit(named)?.filter(|_| new.is_some())),
    }
}

/// A branch or a tag by its short name: a branch and a tag may have the same one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ref {
    Branch(String),
    Tag(String),
}

impl Ref {
    /// Parses a full name; `None` for what is neither branch nor tag, e.g. `refs/notes/x`. An error
    /// if git does not allow the name.
    pub fn parse(full: &str) -> Result<Option<Self>, Refusal> {
        if full.len() > 1024 || !git2::Reference::is_valid_name(full) {
            return Err(Refusal::malformed("the name of a ref is not valid in git"));
        }
        let branch = full.strip_prefix("refs/heads/");
        let tag = full.strip_prefix("refs/tags/");
        Ok(branch
            .map(|name| Self::Branch(name.to_owned()))
            .or(tag.map(|name| Self::Tag(name.to_owned()))))
    }

    /// `refs/heads/main` or `refs/tags/v1`.
    pub fn full(&self) -> String {
        match self {
            Self::Branch(name) => format!("refs/heads/{name}"),
            Self::Tag(name) => format!("refs/tags/{name}"),
        }
    }
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Branch(name) => write!(f, "branch `{name}`"),
            Self::Tag(name) => write!(f, "tag `{name}`"),
        }
    }
}

/// A commit id; `None` for all zeros, an empty text or null, which all mean that there is none.
pub(super) fn commit(text: Option<&str>) -> Result<Option<CommitId>, Refusal> {
    match text {
        None | Some("") => Ok(None),
        Some(zeros) if matches!(zeros.len(), 40 | 64) && zeros.bytes().all(|b| b == b'0') => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|_| match text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
                true => Refusal::malformed(
                    "the repository's ids are SHA-256, which is not supported: use one with SHA-1 ids",
                ),
                false => Refusal::malformed("a commit id is not 40 lower-case hex digits"),
            }),
    }
}

/// Text for people: at most `most` bytes, without control characters that could manipulate a terminal.
pub(super) fn text(text: &str, most: usize) -> Option<String> {
    let boundary = |end: &usize| text.is_char_boundary(*end);
    let kept = (0..=most).rev().find(boundary).unwrap_or(0);
    let clean = printable(text[..kept].trim_end()).into_owned();
    (!clean.is_empty()).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_named_like_a_branch_stays_a_tag() {
        let parse = |full| Ref::parse(full).unwrap();
        assert_eq!(parse("refs/heads/main"), Some(Ref::Branch("main".into())));
        assert_eq!(parse("refs/tags/main"), Some(Ref::Tag("main".into())));
        let odd = "refs/heads/refs/tags/v1";
        assert_eq!(parse(odd), Some(Ref::Branch("refs/tags/v1".into())));
        assert_eq!(parse(odd).unwrap().full(), odd);
        assert_eq!(
            parse("refs/heads/feature/ünï"),
            Some(Ref::Branch("feature/ünï".into()))
        );
        assert_eq!(parse("refs/notes/commits"), None);
        for bad in [
            "",
            "main",
            "refs/heads/",
            "refs/heads/a..b",
            "refs/heads/a\0",
            "refs/heads/a b",
        ] {
            assert!(Ref::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn text_is_cut_at_a_character_and_cleaned() {
        assert_eq!(text("a\u{1b}[31mb\0\n", 100).as_deref(), Some("ab\u{fffd}"));
        assert_eq!(text("üü", 3).as_deref(), Some("ü"));
        assert_eq!(text("\n", 9), None);
    }
}
