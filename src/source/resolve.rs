//! Resolves what is wanted to a commit, among the objects of the mirror.

use git2::{ErrorCode, ObjectType, Oid, Reference, Repository};
use time::OffsetDateTime;

use super::{Commit, Revision, SourceError};
use crate::config::similar;
use crate::ids::CommitId;
use crate::printable::printable;

pub(super) const HEADS: &str = "refs/heads/";
pub(super) const TAGS: &str = "refs/tags/";
/// The fewest digits that name a commit.
pub(super) const FEWEST_DIGITS: usize = 7;

/// Finds the wanted commit; `repo` names the repository in errors.
pub(super) fn resolve(
    git: &Repository,
    revision: &Revision,
    repo: &str,
) -> Result<Commit, SourceError> {
    find(git, revision, repo).map_err(|error| {
        let refs = git.references().into_iter().flatten().flatten();
        let names: Vec<_> = refs
            .filter_map(|found| found.name().ok().map(str::to_owned))
            .collect();
        or_near(error, names.iter().map(String::as_str))
    })
}

fn find(git: &Repository, revision: &Revision, repo: &str) -> Result<Commit, SourceError> {
    let missing = |what, name: &str| missing(repo, what, name);
    match revision {
        Revision::Branch(name) => {
            reference(git, &format!("{HEADS}{name}"), repo)?.ok_or_else(|| missing("branch", name))
        }
        Revision::Tag(name) => {
            reference(git, &format!("{TAGS}{name}"), repo)?.ok_or_else(|| missing("tag", name))
        }
        Revision::Commit(id) | Revision::Recorded(id) => by_id(git, id, repo),
        Revision::Named(name) => {
            for full in meanings(name)? {
                if let Some(commit) = reference(git, &full, repo)? {
                    return Ok(commit);
                }
            }
            by_prefix(git, name, repo)?.ok_or_else(|| missing("branch, tag or commit", name))
        }
    }
}

pub(super) fn missing(repo: &str, what: &'static str, name: &str) -> SourceError {
    SourceError::NoSuchRef {
        repo: repo.to_owned(),
        what,
        name: name.to_owned(),
        aside: String::new(),
    }
}

/// Adds what may have been meant instead of a ref that does not exist, of the repository's `refs`.
pub(super) fn or_near<'r>(
    mut error: SourceError,
    refs: impl Iterator<Item = &'r str>,
) -> SourceError {
    if let SourceError::NoSuchRef { name, aside, .. } = &mut error {
        let short = |full: &'r str| full.strip_prefix(HEADS).or_else(|| full.strip_prefix(TAGS));
        let is_digits = name.len() > 1 && name.bytes().all(|b| b.is_ascii_hexdigit());
        *aside = match similar::nearest(name, refs.filter_map(short)) {
            Some(near) => format!(" (did you mean `{near}`?)"),
            None if is_digits && name.len() < FEWEST_DIGITS => {
                format!(" (a commit needs at least {FEWEST_DIGITS} digits)")
            }
            None => String::new(),
        };
    }
    error
}

/// The refs that a person's text may mean, in the order in which they are tried: a branch, a tag, or
/// either in full, for a branch and a tag of the same name.
pub(super) fn meanings(name: &str) -> Result<Vec<String>, SourceError> {
    let short = [HEADS, TAGS].map(|folder| format!("{folder}{name}"));
    if !short.iter().all(|full| is_valid(full)) {
        return Err(SourceError::InvalidRef(shown(name)));
    }
    let full = is_ours(name).then(|| name.to_owned());
    Ok(short.into_iter().chain(full).collect())
}

/// Whether a person's text can name a branch, a tag or a commit in any repository.
pub fn can_be_named(name: &str) -> Result<(), SourceError> {
    meanings(name).map(drop)
}

fn is_valid(full: &str) -> bool {
    Reference::is_valid_name(full) && !full.contains('\0')
}

/// Whether a ref is a branch or a tag.
pub(super) fn is_ours(full: &str) -> bool {
    full.starts_with(HEADS) || full.starts_with(TAGS)
}

/// The commit with this id, which must be in the mirror already. A push of an annotated tag names the
/// tag object, which is resolved to its commit.
pub(super) fn by_id(git: &Repository, id: &CommitId, repo: &str) -> Result<Commit, SourceError> {
    let oid = Oid::from_str(id.as_str()).map_err(|error| damaged(repo, &error))?;
    let missing = || SourceError::NoSuchCommit {
        repo: repo.to_owned(),
        id: id.clone(),
    };
    match git.find_object(oid, None) {
        // A tag of a file does not lead to a commit either.
        Ok(object) => match object.peel(ObjectType::Commit) {
            Ok(commit) => describe(git, commit.id(), repo),
            Err(_) => Err(missing()),
        },
        Err(error) if error.code() == ErrorCode::NotFound => Err(missing()),
        Err(error) => Err(damaged(repo, &error)),
    }
}

/// The commit that a ref points to, through annotated tags. `None` if there is no such ref.
fn reference(git: &Repository, full: &str, repo: &str) -> Result<Option<Commit>, SourceError> {
    if !is_valid(full) {
        return Err(SourceError::InvalidRef(shown(full)));
    }
    let found = match git.find_reference(full) {
        Ok(found) => found,
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
        // A ref `a` exists and `a/b` was requested, or the other way round.
        Err(error) if error.class() == git2::ErrorClass::Os => return Ok(None),
        Err(error) => return Err(damaged(repo, &error)),
    };
    match found.peel(ObjectType::Commit) {
        Ok(object) => describe(git, object.id(), repo).map(Some),
        // A tag of a file or a folder is not a commit.
        Err(error) if matches!(error.code(), ErrorCode::Peel | ErrorCode::InvalidSpec) => Ok(None),
        Err(error) => Err(damaged(repo, &error)),
    }
}

/// The text as an abbreviated commit id, if it can be one.
pub(super) fn digits(text: &str) -> Option<String> {
    let good =
        (FEWEST_DIGITS..=40).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    good.then(|| text.to_ascii_lowercase())
}

/// The one commit whose id begins with these digits.
pub(super) fn by_prefix(
    git: &Repository,
    text: &str,
    repo: &str,
) -> Result<Option<Commit>, SourceError> {
    let Some(digits) = digits(text) else {
        return Ok(None);
    };
    match git.find_commit_by_prefix(&digits) {
        Ok(commit) => describe(git, commit.id(), repo).map(Some),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) if error.code() == ErrorCode::Ambiguous => {
            Err(SourceError::Ambiguous(shown(text)))
        }
        Err(error) => Err(damaged(repo, &error)),
    }
}

/// Reads a commit that a ref or the object database has just named: if it or its root folder is
/// missing, the mirror is damaged.
fn describe(git: &Repository, oid: Oid, repo: &str) -> Result<Commit, SourceError> {
    let commit = git.find_commit(oid).map_err(|e| damaged(repo, &e))?;
    let tree = commit.tree().map_err(|e| damaged(repo, &e))?;
    let message = String::from_utf8_lossy(commit.message_bytes());
    let author = String::from_utf8_lossy(commit.author().name_bytes()).into_owned();
    Ok(Commit {
        id: oid
            .to_string()
            .parse()
            .expect("an object id is 40 hex digits"),
        tree: tree.id().to_string(),
        message: line(message.trim_start().lines().next().unwrap_or_default()),
        author: line(&author),
        time: OffsetDateTime::from_unix_timestamp(commit.time().seconds())
            .unwrap_or(OffsetDateTime::UNIX_EPOCH),
    })
}

pub(super) fn damaged(repo: &str, error: &git2::Error) -> SourceError {
    SourceError::MirrorDamaged {
        repo: repo.to_owned(),
        why: line(error.message()),
    }
}

/// Text from outside, made safe for one line of a terminal.
pub(super) fn line(text: &str) -> String {
    let one = text.trim().replace(['\n', '\t'], "\u{fffd}");
    printable(&one).chars().take(300).collect()
}

fn shown(text: &str) -> String {
    line(text).chars().take(100).collect()
}
