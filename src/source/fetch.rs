//! One connection to the repository: find the wanted ref, drop stale ones, download one commit.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use git2::{
    AutotagOption, Direction, Error, ErrorClass, ErrorCode, FetchOptions, FetchPrune, Oid,
    ProxyOptions, Reference, Remote, RemoteCallbacks, Repository,
};
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::local::SHA256;
use super::progress::Progress;
use super::resolve::{
    HEADS, TAGS, by_id, by_prefix, damaged, digits, is_ours, line, meanings, missing,
};
use super::{Commit, SourceError, Want};
use crate::config::{Repo, Source};
use crate::ids::CommitId;

/// The commit alone.
const ONE: i32 = 1;
/// All commits before it.
const WHOLE: i32 = i32::MAX;

/// What one fetch needs to know.
pub(super) struct Fetch<'a> {
    pub(super) repo: &'a Repo,
    /// The repository's address as errors may show it.
    pub(super) shown: &'a str,
    pub(super) source: &'a Source,
    pub(super) log: &'a dyn Fn(&str),
    pub(super) cancel: &'a CancellationToken,
    pub(super) deadline: Instant,
}

impl Fetch<'_> {
    /// Brings the wanted commit alone into `git`, without its history, which is not needed: a
    /// repository's size is mostly in its past and in its other branches.
    pub(super) fn get(&self, git: &Repository, want: &Want) -> Result<Commit, SourceError> {
        self.connected(git, |remote, options| {
            let heads = advertised(remote).map_err(|e| self.unreachable(&e))?;
            if heads.is_empty() {
                return Err(SourceError::Empty {
                    repo: self.shown.to_owned(),
                });
            }
            self.drop_stale(git, &heads)?;
            let (what, text) = match want {
                Want::Branch(name) => ("branch", name.as_str()),
                Want::Tag(name) => ("tag", name.as_str()),
                Want::Commit(id) => ("commit", id.as_str()),
                Want::Named(name) => ("branch, tag or commit", name.as_str()),
            };
            for full in self.meant(want)? {
                if let Some(oid) = heads.get(&full) {
                    return self.get_ref(git, remote, options, &full, *oid);
                }
            }
            let found = match want {
                Want::Commit(id) => return self.get_one(git, remote, options, id),
                Want::Named(text) => self.by_digits(git, remote, options, &heads, text)?,
                _ => None,
            };
            found.ok_or_else(|| missing(self.shown, what, text))
        })
    }

    fn meant(&self, want: &Want) -> Result<Vec<String>, SourceError> {
        Ok(match want {
            Want::Branch(name) => vec![format!("{HEADS}{name}")],
            Want::Tag(name) => vec![format!("{TAGS}{name}")],
            Want::Commit(_) => Vec::new(),
            Want::Named(name) => meanings(name)?,
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
                SourceError::Damaged {
                    repo: self.shown.to_owned(),
                    why: format!("`{full}` is not there"),
                }
            }
            // A tag of a file or a folder.
            SourceError::NoSuchCommit { .. } => missing(self.shown, "commit behind", full),
            error => error,
        })
    }

    /// Asks for a commit by its id, which servers may refuse.
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
        if self.download(remote, options, &[&spec], ONE).is_err() {
            self.going()?;
            return found;
        }
        by_id(git, id, self.shown)
    }

    /// The commit that a person means with these digits: one that is at the tip of a branch or tag, or
    /// was fetched before, or else whichever the whole history has.
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
        (self.log)("fetching the whole history to find the commit");
        let all = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
        self.download(remote, options, &all, WHOLE)?;
        by_prefix(git, &digits, self.shown)
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
            (self.log)(&format!(
                "fetched {} objects, {} KiB",
                stats.received_objects(),
                stats.received_bytes().div_ceil(1024)
            ));
        }
        Ok(())
    }

    /// Drops the refs that the repository does not have any more: a branch `a` that is gone would
    /// stand in the way of a new branch `a/b`.
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

    /// The branch that the server calls its own.
    pub(super) fn default_branch(&self) -> Result<Option<String>, SourceError> {
        let remote =
            Remote::create_detached(address(self.repo)).map_err(|e| self.unreachable(&e))?;
        self.connect(remote, |remote, _| {
            let name = remote.default_branch().ok();
            let name = name.and_then(|name| Some(name.as_str().ok()?.to_owned()));
            Ok(name.and_then(|name| Some(name.strip_prefix(HEADS)?.to_owned())))
        })
    }

    fn connected<T>(
        &self,
        git: &Repository,
        work: impl FnOnce(&mut Remote<'_>, &mut FetchOptions<'_>) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let remote =
            (git.remote_anonymous(&address(self.repo))).map_err(|e| self.unreachable(&e))?;
        self.connect(remote, work)
    }

    fn connect<T>(
        &self,
        mut remote: Remote<'_>,
        work: impl FnOnce(&mut Remote<'_>, &mut FetchOptions<'_>) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        self.going()?;
        let access = Access::new(self.repo, self.source);
        let mut proxy = ProxyOptions::new();
        proxy.auto();
        let mut connection = remote
            .connect_auth(Direction::Fetch, Some(self.callbacks(&access)), Some(proxy))
            .map_err(|e| self.while_connecting(&access, &e))?;
        let mut proxy = ProxyOptions::new();
        proxy.auto();
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(self.callbacks(&access))
            .proxy_options(proxy)
            .download_tags(AutotagOption::None)
            .prune(FetchPrune::Off)
            .update_fetchhead(false);
        work(connection.remote(), &mut options)
    }

    fn callbacks<'a>(&'a self, access: &'a Access<'a>) -> RemoteCallbacks<'a> {
        let progress = Rc::new(Progress::new(self.log));
        let (said, received) = (progress.clone(), progress);
        let mut callbacks = RemoteCallbacks::new();
        callbacks
            .credentials(|url, user, allowed| access.credentials(url, user, allowed))
            .certificate_check(|cert, _| access.certificate(cert))
            .sideband_progress(move |text| {
                said.remote(text);
                self.going().is_ok()
            });
        callbacks.transfer_progress(move |stats| {
            received.received(&stats);
            self.going().is_ok()
        });
        callbacks
    }

    /// An error where the fetch was cancelled or its time is over.
    pub(super) fn going(&self) -> Result<(), SourceError> {
        if self.cancel.is_cancelled() {
            return Err(SourceError::Cancelled);
        }
        if Instant::now() >= self.deadline {
            return Err(SourceError::TimedOut {
                repo: self.shown.to_owned(),
            });
        }
        Ok(())
    }

    fn while_connecting(&self, access: &Access<'_>, error: &Error) -> SourceError {
        if let Err(stopped) = self.going() {
            return stopped;
        }
        // libgit2 loses the code of an https certificate on its way through the callback.
        let tls = error.class() == ErrorClass::Ssl && error.message().contains("certificate");
        if tls || error.code() == ErrorCode::Certificate {
            return self.unknown_server(access, error);
        }
        let refused = access.refused.take();
        if refused.is_some() || error.code() == ErrorCode::Auth {
            return SourceError::Refused {
                repo: self.shown.to_owned(),
                why: refused.unwrap_or_else(|| line(error.message())),
            };
        }
        self.unreachable(error)
    }

    fn unknown_server(&self, access: &Access<'_>, error: &Error) -> SourceError {
        let key = access.host_key.take();
        let (why, hint) = match (&self.source.host_key, key) {
            (Some(pinned), Some(key)) => (
                format!("it shows the key `{key}`, and `{pinned}` is pinned"),
                "if the server's key has really changed, correct `host_key` under `[apps.NAME.source]`".to_owned(),
            ),
            (None, Some(key)) => (
                format!("its key `{key}` is not in known_hosts"),
                format!("compare it with what the server's owner publishes, then set `host_key = \"{key}\"` under `[apps.NAME.source]`"),
            ),
            (_, None) => (
                line(error.message()),
                "install the certificate authority that signed it, or correct `repo`".to_owned(),
            ),
        };
        SourceError::UnknownServer {
            repo: self.shown.to_owned(),
            why,
            hint,
        }
    }

    pub(super) fn after_connecting(&self, error: &Error) -> SourceError {
        if let Err(stopped) = self.going() {
            return stopped;
        }
        match error.class() {
            _ if is_of_long_ids(error) => self.unreachable(error),
            ErrorClass::Net | ErrorClass::Http | ErrorClass::Ssh | ErrorClass::Ssl => {
                SourceError::BrokeOff {
                    repo: self.shown.to_owned(),
                    why: line(error.message()),
                }
            }
            _ => damaged(self.shown, error),
        }
    }

    pub(super) fn unreachable(&self, error: &Error) -> SourceError {
        if is_of_long_ids(error) {
            return SourceError::Unsupported {
                repo: self.shown.to_owned(),
                why: SHA256.into(),
            };
        }
        SourceError::Unreachable {
            repo: self.shown.to_owned(),
            why: line(error.message()),
        }
    }
}

fn address(repo: &Repo) -> String {
    match repo {
        Repo::Http(url) | Repo::Ssh(url) => url.clone(),
        Repo::Local(path) => path.display().to_string(),
    }
}

fn advertised(remote: &git2::Remote<'_>) -> Result<HashMap<String, Oid>, Error> {
    Ok((remote.list()?.iter())
        .filter(|head| Reference::is_valid_name(head.name()) && is_ours(head.name()))
        .map(|head| (head.name().to_owned(), head.oid()))
        .collect())
}

/// What libgit2 says of a server whose ids are longer than it knows.
fn is_of_long_ids(error: &Error) -> bool {
    error.message().contains("object format")
}

fn parsed(oid: Oid) -> CommitId {
    let text = oid.to_string();
    text.parse().expect("an object id is 40 hex digits")
}
