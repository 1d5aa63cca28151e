//! A connection to the repository's server: progress, and the meaning of its errors.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use git2::{
    AutotagOption, Direction, Error, ErrorClass, FetchOptions, FetchPrune, Remote, RemoteCallbacks,
    Repository,
};

use super::SourceError;
use super::fetch::Fetch;
use super::local::SHA256;
use super::lock::beside;
use super::progress::Progress;
use super::resolve::{HEADS, damaged, line};
use super::transport::{self, Failure, Session};
use crate::config::Repo;

impl Fetch<'_> {
    /// The server's default branch.
    pub(super) fn default_branch(&self) -> Result<Option<String>, SourceError> {
        let remote =
            Remote::create_detached(address(self.repo)).map_err(|e| self.unreachable(&e))?;
        self.connect(remote, |remote, _| {
            let name = remote.default_branch().ok();
            let name = name.and_then(|name| Some(name.as_str().ok()?.to_owned()));
            Ok(name.and_then(|name| Some(name.strip_prefix(HEADS)?.to_owned())))
        })
    }

    pub(super) fn connected<T>(
        &self,
        git: &Repository,
        work: impl FnOnce(&mut Remote<'_>, &mut FetchOptions<'_>) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let remote =
            (git.remote_anonymous(&address(self.repo))).map_err(|e| self.unreachable(&e))?;
        self.connect(remote, work)
    }

    pub(super) fn connect<T>(
        &self,
        mut remote: Remote<'_>,
        work: impl FnOnce(&mut Remote<'_>, &mut FetchOptions<'_>) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        self.going()?;
        let session = self.session().map_err(|error| SourceError::Unreachable {
            repo: self.shown.to_owned(),
            why: format!("this process has no room for a connection: {error}"),
        })?;
        let _entered = transport::enter(Arc::new(session));
        let mut connection = remote
            .connect_auth(Direction::Fetch, Some(self.callbacks()), None)
            .map_err(|error| self.while_connecting(&error))?;
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(self.callbacks())
            .download_tags(AutotagOption::None)
            .prune(FetchPrune::Off)
            .update_fetchhead(false);
        work(connection.remote(), &mut options)
    }

    fn session(&self) -> std::io::Result<Session> {
        let host_key = beside(self.mirror, ".host_key");
        Session::new(
            self.source,
            host_key,
            self.cancel,
            self.deadline,
            &self.failed,
        )
    }

    fn callbacks(&self) -> RemoteCallbacks<'_> {
        let progress = Rc::new(Progress::new(self.log));
        let (said, received) = (progress.clone(), progress);
        let mut callbacks = RemoteCallbacks::new();
        callbacks.sideband_progress(move |text| {
            said.remote(text);
            self.going().is_ok()
        });
        callbacks.transfer_progress(move |stats| {
            received.received(&stats);
            self.going().is_ok()
        });
        callbacks
    }

    /// Returns an error if the fetch was cancelled or its deadline has passed.
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

    fn while_connecting(&self, error: &Error) -> SourceError {
        self.failure().unwrap_or_else(|| self.unreachable(error))
    }

    pub(super) fn after_connecting(&self, error: &Error) -> SourceError {
        let broke_off = |why| SourceError::BrokeOff {
            repo: self.shown.to_owned(),
            why,
        };
        match (self.failure(), error.class()) {
            (Some(SourceError::Unreachable { why, .. }), _) => broke_off(why),
            (Some(failure), _) => failure,
            _ if is_of_long_ids(error) => self.unreachable(error),
            (None, ErrorClass::Net) => broke_off(line(error.message())),
            (None, _) => damaged(self.shown, error),
        }
    }

    /// Why the connection failed, unless it is libgit2 that has found fault.
    fn failure(&self) -> Option<SourceError> {
        if let Err(stopped) = self.going() {
            return Some(stopped);
        }
        let repo = self.shown.to_owned();
        Some(match self.failed.take()? {
            Failure::Unreachable(why) => SourceError::Unreachable { repo, why },
            Failure::Refused(why) => SourceError::Refused { repo, why },
            Failure::Limited(why) => SourceError::Limited { repo, why },
            Failure::UnknownServer { why, hint } => SourceError::UnknownServer { repo, why, hint },
            Failure::Stopped => SourceError::TimedOut { repo },
        })
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
        Repo::Image(image) => image.to_string(),
    }
}

/// Whether libgit2 reports that the server's object ids are longer than it supports.
fn is_of_long_ids(error: &Error) -> bool {
    error.message().contains("object format")
}
