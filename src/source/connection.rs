//! A connection to the repository's server: authentication, progress, and the meaning of its
//! errors.

use std::rc::Rc;
use std::time::Instant;

use git2::{
    AutotagOption, Direction, Error, ErrorClass, ErrorCode, FetchOptions, FetchPrune, ProxyOptions,
    Remote, RemoteCallbacks, Repository,
};

use super::SourceError;
use super::access::Access;
use super::fetch::Fetch;
use super::local::SHA256;
use super::progress::Progress;
use super::resolve::{HEADS, damaged, line};
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

    fn while_connecting(&self, access: &Access<'_>, error: &Error) -> SourceError {
        if let Err(stopped) = self.going() {
            return stopped;
        }
        // libgit2 loses the error code for an HTTPS certificate on its way through the callback.
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

/// Whether libgit2 reports that the server's object ids are longer than it supports.
fn is_of_long_ids(error: &Error) -> bool {
    error.message().contains("object format")
}
