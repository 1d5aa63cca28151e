//! One connection to the repository: compare the refs, drop the stale ones, download what is new.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::Instant;

use git2::{
    AutotagOption, Direction, Error, ErrorClass, ErrorCode, FetchOptions, FetchPrune, Oid,
    ProxyOptions, Reference, RemoteCallbacks, Repository,
};
use tokio_util::sync::CancellationToken;

use super::SourceError;
use super::access::Access;
use super::resolve::{damaged, line};
use crate::config::{Repo, Source};
use crate::ids::CommitId;

const HEADS: &str = "refs/heads/";
const TAGS: &str = "refs/tags/";

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
    /// Makes the branches and tags of `git` those of the repository.
    pub(super) fn all(&self, git: &Repository) -> Result<(), SourceError> {
        if let Repo::Local(path) = self.repo {
            return self.all_local(git, path);
        }
        self.connected(git, |remote, options| {
            let heads = advertised(remote).map_err(|e| damaged(self.shown, &e))?;
            if self.without_stale(git, &heads)?.is_none() {
                return Ok(());
            }
            let specs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
            (remote.fetch(&specs, Some(options), None)).map_err(|e| self.after_connecting(&e))?;
            let stats = remote.stats();
            if stats.received_objects() > 0 {
                (self.log)(&format!(
                    "fetched {} objects, {} KiB",
                    stats.received_objects(),
                    stats.received_bytes().div_ceil(1024)
                ));
            }
            Ok(())
        })
    }

    /// Drops the refs that the repository does not have any more, and returns those that stay;
    /// `None` if nothing is to be fetched. Before the download, not after it: a branch `a` that is
    /// gone would stand in the way of a new branch `a/b`.
    pub(super) fn without_stale(
        &self,
        git: &Repository,
        heads: &HashMap<String, Oid>,
    ) -> Result<Option<HashMap<String, Oid>>, SourceError> {
        if heads.is_empty() {
            return Err(SourceError::Empty {
                repo: self.shown.to_owned(),
            });
        }
        let mut ours = own(git).map_err(|e| damaged(self.shown, &e))?;
        if ours == *heads {
            return Ok(None);
        }
        for name in ours.keys().filter(|name| !heads.contains_key(*name)) {
            (git.find_reference(name))
                .and_then(|mut stale| stale.delete())
                .map_err(|e| damaged(self.shown, &e))?;
        }
        ours.retain(|name, _| heads.contains_key(name));
        Ok(Some(ours))
    }

    /// Asks for one commit that no branch or tag leads to. Servers may refuse that.
    pub(super) fn one(&self, git: &Repository, id: &CommitId) -> Result<(), SourceError> {
        self.connected(git, |remote, options| {
            let spec = format!("+{id}:refs/cutover/{id}");
            remote
                .fetch(&[spec], Some(options), None)
                .map_err(|e| self.after_connecting(&e))
        })
    }

    fn connected(
        &self,
        git: &Repository,
        work: impl FnOnce(&mut git2::Remote<'_>, &mut FetchOptions<'_>) -> Result<(), SourceError>,
    ) -> Result<(), SourceError> {
        self.going()?;
        let access = Access::new(self.repo, self.source);
        let mut remote =
            (git.remote_anonymous(&address(self.repo))).map_err(|e| self.unreachable(&e))?;
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
        let mut callbacks = RemoteCallbacks::new();
        callbacks
            .credentials(|url, user, allowed| access.credentials(url, user, allowed))
            .certificate_check(|cert, _| access.certificate(cert))
            .sideband_progress(|_| self.going().is_ok());
        let next = Cell::new(10);
        callbacks.transfer_progress(move |stats| {
            let (done, total) = (stats.received_objects(), stats.total_objects());
            if total >= 1000 && done * 100 >= total * next.get() {
                (self.log)(&format!("fetching: {done} of {total} objects"));
                next.set(next.get() + 10);
            }
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
            ErrorClass::Net | ErrorClass::Http | ErrorClass::Ssh | ErrorClass::Ssl => {
                self.unreachable(error)
            }
            _ => damaged(self.shown, error),
        }
    }

    pub(super) fn unreachable(&self, error: &Error) -> SourceError {
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

/// The branches and tags of a repository on this machine.
pub(super) fn own(git: &Repository) -> Result<HashMap<String, Oid>, Error> {
    let mut refs = HashMap::new();
    for found in git.references()? {
        let found = found?;
        let Some(name) = found.name().ok().filter(|name| is_ours(name)) else {
            continue;
        };
        // A branch may be another name of one; one that leads nowhere is no branch yet.
        if let Some(oid) = found.resolve().ok().and_then(|found| found.target()) {
            refs.insert(name.to_owned(), oid);
        }
    }
    Ok(refs)
}

fn is_ours(name: &str) -> bool {
    name.starts_with(HEADS) || name.starts_with(TAGS)
}
