//! One connection to the repository: find the wanted ref, remove stale ones, download one commit.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Instant;

use git2::{Error, FetchOptions, Oid, Reference, Remote, Repository};
use tokio_util::sync::CancellationToken;

use super::resolve::{
    HEADS, TAGS, by_id, by_prefix, damaged, digits, is_ours, meanings, missing, or_near,
};
use super::transport::Failed;
use super::{Commit, Revision, SourceError};
use crate::config::{Repo, Source};
use crate::ids::CommitId;

/// A depth: the commit alone.
const ONE: i32 = 1;
/// A depth: the commit and all commits before it.
const WHOLE: i32 = i32::MAX;
/// Far more tags than a commit has.
pub(super) const MOST_TAGS: usize = 100;

/// What one fetch needs to know.
pub(super) struct Fetch<'a> {
    pub(super) repo: &'a Repo,
    /// The repository's address in a form that errors may show.
    pub(super) shown: &'a str,
    pub(super) source: &'a Source,
    /// The mirror's folder, beside which the server's pinned key is kept.
    pub(super) mirror: &'a Path,
    pub(super) log: &'a dyn Fn(&str),
    pub(super) cancel: &'a CancellationToken,
    pub(super) deadline: Instant,
    pub(super) failed: Failed,
}

impl Fetch<'_> {
    /// Fetches only the wanted commit into `git`, without its history, which is not needed: most of a
    /// repository's size is in its past and in its other branches.
    pub(super) fn get(&self, git: &Repository, revision: &Revision) -> Result<Commit, SourceError> {
        self.connected(git, |remote, options| {
            let heads = advertised(remote).map_err(|e| self.unreachable(&e))?;
            if heads.is_empty() {
                return Err(SourceError::Empty {
                    repo: self.shown.to_owned(),
                });
            }
            self.drop_stale(git, &heads)?;
            let (what, text) = match revision {
                Revision::Branch(name) => ("branch", name.as_str()),
                Revision::Tag(name) => ("tag", name.as_str()),
                Revision::Commit(id) | Revision::Recorded(id) => ("commit", id.as_str()),
                Revision::Named(name) => ("branch, tag or commit", name.as_str()),
            };
            for full in self.meant(revision)? {
                if let Some(oid) = heads.get(&full) {
                    return self.get_ref(git, remote, options, &full, *oid);
                }
            }
            let found = match revision {
                Revision::Commit(id) => return self.get_one(git, remote, options, id),
                Revision::Recorded(id) => return self.get_anyhow(git, remote, options, &heads, id),
                Revision::Named(text) => self.by_digits(git, remote, options, &heads, text)?,
                _ => None,
            };
            let known = || heads.keys().map(String::as_str);
            found.ok_or_else(|| or_near(missing(self.shown, what, text), known()))
        })
    }

    fn meant(&self, revision: &Revision) -> Result<Vec<String>, SourceError> {
        Ok(match revision {
            Revision::Branch(name) => vec![format!("{HEADS}{name}")],
            Revision::Tag(name) => vec![format!("{TAGS}{name}")],
            Revision::Commit(_) | Revision::Recorded(_) => Vec::new(),
            Revision::Named(name) => meanings(name)?,
        })
    }

    fn get_ref(
        &self,
        git: &Repository,
        remote: &mut Remote<'_>,
        options: &mut FetchOptions<'_>,
        full: &str,
        oid: Oid,
    ) -> Result<Commit, SourceError> {
        let ours = git.find_reference(full).ok().and_then(|own| own.target());
        if ours != Some(oid) {
            self.download(remote, options, &[&format!("+{full}:{full}")], ONE)?;
        }
        let id: CommitId = parsed(oid);
        by_id(git, &id, self.shown).map_err(|error| match error {
            SourceError::NoSuchCommit { .. } if !git.odb().is_ok_and(|odb| odb.exists(oid)) => {
                SourceError::MirrorDamaged {
                    repo: self.shown.to_owned(),
                    why: format!("`{full}` is missing"),
                }
            }
            // A tag of a file or a folder.
            SourceError::NoSuchCommit { .. } => missing(self.shown, "commit behind", full),
            error => error,
        })
    }

    /// Requests a commit by its id, which servers may refuse.
    fn get_one(
        &self,
        git: &Repository,
        remote: &mut Remote<'_>,
        options: &mut FetchOptions<'_>,
        id: &CommitId,
    ) -> Result<Commit, SourceError> {
        let found = by_id(git, id, self.shown);
        if !matches!(found, Err(SourceError::NoSuchCommit { .. })) {
            return found;
        }
        let spec = format!("+{id}:refs/cutover/{id}");
        match self.download(remote, options, &[&spec], ONE) {
            Ok(()) => by_id(git, id, self.shown),
            Err(error) if denies(&error.to_string()) => found,
            Err(error) => Err(error),
        }
    }

    /// Like [`Fetch::get_one`], but goes on where the server refuses: to a tip, then to the whole history.
    fn get_anyhow(
        &self,
        git: &Repository,
        remote: &mut Remote<'_>,
        options: &mut FetchOptions<'_>,
        heads: &HashMap<String, Oid>,
        id: &CommitId,
    ) -> Result<Commit, SourceError> {
        match self.get_one(git, remote, options, id) {
            Err(SourceError::NoSuchCommit { .. }) => {}
            done => return done,
        }
        if let Some((full, oid)) = heads.iter().find(|(_, oid)| oid.to_string() == id.as_str()) {
            return self.get_ref(git, remote, options, full, *oid);
        }
        self.download_all(remote, options)?;
        by_id(git, id, self.shown)
    }

    /// The commit whose id begins with these digits, which a person typed: among the commits that
    /// were fetched before, else at the tip of a branch or tag, else in the whole history.
    fn by_digits(
        &self,
        git: &Repository,
        remote: &mut Remote<'_>,
        options: &mut FetchOptions<'_>,
        heads: &HashMap<String, Oid>,
        text: &str,
    ) -> Result<Option<Commit>, SourceError> {
        let Some(digits) = digits(text) else {
            return Ok(None);
        };
        if let Some(commit) = by_prefix(git, &digits, self.shown)? {
            return Ok(Some(commit));
        }
        let tip = heads
            .iter()
            .find(|(_, oid)| oid.to_string().starts_with(&digits));
        if let Some((full, oid)) = tip {
            return self.get_ref(git, remote, options, full, *oid).map(Some);
        }
        if let Ok(id) = digits.parse()
            && let Ok(commit) = self.get_one(git, remote, options, &id)
        {
            return Ok(Some(commit));
        }
        self.download_all(remote, options)?;
        by_prefix(git, &digits, self.shown)
    }

    fn download_all(
        &self,
        remote: &mut Remote<'_>,
        options: &mut FetchOptions<'_>,
    ) -> Result<(), SourceError> {
        (self.log)("fetching the whole history to find the commit");
        let all = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
        self.download(remote, options, &all, WHOLE)
    }

    /// Downloads the tags that the server has of a commit; their names.
    pub(super) fn tags(
        &self,
        git: &Repository,
        commit: Oid,
    ) -> Result<HashSet<String>, SourceError> {
        /// What the server adds to the name of a tag that is an object, to say what that points to.
        const PEELED: &str = "^{}";
        self.connected(git, |remote, options| {
            let heads = remote.list().map_err(|e| self.unreachable(&e))?;
            let of_commit = heads.iter().filter(|head| head.oid() == commit);
            let names = of_commit.map(|head| head.name());
            let names = names.map(|name| name.strip_suffix(PEELED).unwrap_or(name));
            let names = names.filter(|it| it.starts_with(TAGS) && Reference::is_valid_name(it));
            let names: HashSet<_> = names.take(MOST_TAGS).map(str::to_owned).collect();
            let specs: Vec<_> = names.iter().map(|name| format!("+{name}:{name}")).collect();
            let specs: Vec<_> = specs.iter().map(String::as_str).collect();
            if !specs.is_empty() {
                self.download(remote, options, &specs, ONE)?;
            }
            Ok(names)
        })
    }

    fn download(
        &self,
        remote: &mut Remote<'_>,
        options: &mut FetchOptions<'_>,
        specs: &[&str],
        depth: i32,
    ) -> Result<(), SourceError> {
        self.going()?;
        options.depth(depth);
        let mut fetched = remote.fetch(specs, Some(options), None);
        if let Err(error) = &fetched
            && error.message().contains("doesn't support shallow")
        {
            options.depth(0);
            fetched = remote.fetch(specs, Some(options), None);
        }
        fetched.map_err(|e| self.after_connecting(&e))?;
        let stats = remote.stats();
        if stats.received_objects() > 0 {
            let objects = match stats.received_objects() {
                1 => "1 object".to_owned(),
                many => format!("{many} objects"),
            };
            let kib = stats.received_bytes().div_ceil(1024);
            (self.log)(&format!("fetched {objects}, {kib} KiB"));
        }
        Ok(())
    }

    /// Removes the refs that the repository no longer has: a deleted branch `a` would be in the way of
    /// a new branch `a/b`.
    fn drop_stale(
        &self,
        git: &Repository,
        heads: &HashMap<String, Oid>,
    ) -> Result<(), SourceError> {
        let stale = |error: Error| damaged(self.shown, &error);
        for found in git.references().map_err(stale)? {
            let mut found = found.map_err(stale)?;
            let gone = (found.name()).is_ok_and(|name| is_ours(name) && !heads.contains_key(name));
            if gone {
                found.delete().map_err(stale)?;
            }
        }
        Ok(())
    }
}

/// Whether a server says by this that it has no such commit, or gives none by its id: the words of git,
/// of libgit2 and of JGit. libgit2 does not read what stands in an error packet in place of the
/// shallow commits.
fn denies(why: &str) -> bool {
    let words = [
        "not our ref",
        "unadvertised object",
        "cannot fetch a specific object",
        "unexpected packet type",
        "not valid",
    ];
    words.iter().any(|word| why.contains(word))
}

fn advertised(remote: &git2::Remote<'_>) -> Result<HashMap<String, Oid>, Error> {
    Ok((remote.list()?.iter())
        .filter(|head| Reference::is_valid_name(head.name()) && is_ours(head.name()))
        .map(|head| (head.name().to_owned(), head.oid()))
        .collect())
}

fn parsed(oid: Oid) -> CommitId {
    let text = oid.to_string();
    text.parse().expect("an object id is 40 hex digits")
}
