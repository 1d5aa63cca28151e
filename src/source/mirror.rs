//! An app's bare mirror of a repository elsewhere: made, kept up to date, and made again when it is
//! damaged. A repository on this machine is its own mirror.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use git2::{ErrorClass, Repository};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::fetch::Fetch;
use super::{Commit, SourceError, Want, init, local, lock, resolve};
use crate::config::{Repo, Source};
use crate::ids::CommitId;

/// Each fetch leaves a pack behind, and every look for an object asks them all: a mirror of so many packs
/// is made anew.
const PACKS: usize = 100;

/// The mirror of one app's repository. Its methods block.
#[derive(Debug, Clone)]
pub struct Mirror {
    folder: PathBuf,
    repo: Repo,
    access: Source,
}

impl Mirror {
    /// The mirror in `folder` (`data_dir/repos/<app>.git`), which the first fetch makes.
    pub fn new(folder: PathBuf, repo: Repo, access: Source) -> Self {
        Self {
            folder,
            repo,
            access,
        }
    }

    /// Brings the wanted commit here, without its history, and returns it. Ends soon after `cancel` or
    /// `deadline`: while a server is silent that takes up to 30 seconds.
    pub fn fetch(
        &self,
        want: &Want,
        log: &dyn Fn(&str),
        cancel: &CancellationToken,
        deadline: Instant,
    ) -> Result<Commit, SourceError> {
        init();
        let shown = self.shown();
        let fetch = Fetch {
            repo: &self.repo,
            shown: &shown,
            source: &self.access,
            log,
            cancel,
            deadline,
        };
        fetch.going()?;
        if let Repo::Local(path) = &self.repo {
            let found = local::find(&local::open(path)?, want, &shown, log);
            return found.map_err(broken);
        }
        if let Some(parent) = self.folder.parent() {
            fs::create_dir_all(parent).map_err(|cause| self.disk(cause))?;
        }
        let _lock = lock::take(&self.folder, cancel, deadline)?;
        if packs(&self.folder) >= PACKS {
            log("making the mirror anew: it has become untidy");
            return self.make(&fetch, want);
        }
        match self.open().and_then(|git| fetch.get(&git, want)) {
            Err(SourceError::Damaged { why, .. }) => {
                if self.folder.exists() {
                    log(&format!("the mirror is damaged ({why}); making it again"));
                }
                // What is wrong with a new one is wrong with the repository.
                self.make(&fetch, want).map_err(broken)
            }
            done => done,
        }
    }

    /// The branch that the repository itself calls its default; `None` where it cannot be asked now.
    pub fn default_branch(&self, deadline: Instant) -> Option<String> {
        init();
        if let Repo::Local(path) = &self.repo {
            return local::default_branch(path);
        }
        let shown = self.shown();
        let fetch = Fetch {
            repo: &self.repo,
            shown: &shown,
            source: &self.access,
            log: &|_| {},
            cancel: &CancellationToken::new(),
            deadline,
        };
        fetch.default_branch().ok()?
    }

    /// A commit's whole message; `None` where the commit is not here.
    pub fn message(&self, commit: &CommitId) -> Option<String> {
        super::bare::message_in(&self.open().ok()?, commit)
    }

    /// The mirror for reading.
    pub(crate) fn open(&self) -> Result<Repository, SourceError> {
        init();
        if let Repo::Local(path) = &self.repo {
            return local::open(path);
        }
        Repository::open_bare(&self.folder).map_err(|e| resolve::damaged(&self.shown(), &e))
    }

    /// What an object that cannot be read means. One that is not there is missing in the mirror, which
    /// is given up (without HEAD it is no repository, and the next fetch makes it again); one that
    /// makes no sense does not make sense in the repository either.
    pub(crate) fn unreadable(&self, error: &git2::Error) -> SourceError {
        let damaged = resolve::damaged(&self.shown(), error);
        if matches!(self.repo, Repo::Local(_)) || error.class() == ErrorClass::Tree {
            return broken(damaged);
        }
        let _ = fs::remove_file(self.folder.join("HEAD"));
        damaged
    }

    /// Makes the mirror in a folder beside and puts it in place when it is whole, so that a half-made
    /// one is never taken for the real one.
    ///
    /// Nothing in it is forced to the disk: what a power cut takes from a mirror is found missing by
    /// its hash, and fetched again, which is rarer than the five syncs of each fetch are slow.
    fn make(&self, fetch: &Fetch<'_>, want: &Want) -> Result<Commit, SourceError> {
        let making = lock::beside(&self.folder, ".making");
        remove(&making).map_err(|cause| self.disk(cause))?;
        let made = Repository::init_bare(&making)
            .map_err(|e| self.disk(io::Error::other(e.message().to_owned())))
            .and_then(|git| fetch.get(&git, want));
        match made {
            Ok(commit) => {
                let done = self.replace(&making).map_err(|cause| self.disk(cause));
                done.map(|()| commit)
            }
            Err(error) => {
                let _ = remove(&making);
                Err(error)
            }
        }
    }

    fn replace(&self, making: &Path) -> io::Result<()> {
        let old = lock::beside(&self.folder, ".old");
        remove(&old)?;
        if self.folder.exists() {
            fs::rename(&self.folder, &old)?;
        }
        fs::rename(making, &self.folder)?;
        if let Some(parent) = self.folder.parent() {
            File::open(parent)?.sync_all()?;
        }
        remove(&old)
    }

    /// The repository's address without the password that it may carry.
    pub(crate) fn shown(&self) -> String {
        match &self.repo {
            Repo::Local(path) => path.display().to_string(),
            Repo::Http(url) | Repo::Ssh(url) => without_password(url),
        }
    }

    fn disk(&self, cause: io::Error) -> SourceError {
        SourceError::Disk {
            path: self.folder.display().to_string(),
            cause,
        }
    }
}

/// The same of the repository itself.
fn broken(error: SourceError) -> SourceError {
    match error {
        SourceError::Damaged { repo, why } => SourceError::Broken { repo, why },
        error => error,
    }
}

fn packs(mirror: &Path) -> usize {
    let files = fs::read_dir(mirror.join("objects/pack"));
    let names = files
        .into_iter()
        .flatten()
        .flatten()
        .map(|file| file.file_name());
    names
        .filter(|name| name.as_encoded_bytes().ends_with(b".pack"))
        .count()
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A repository's address, fit to be shown.
pub(crate) fn without_password(address: &str) -> String {
    match Url::parse(address) {
        Ok(mut url) if url.password().is_some() => {
            let _ = url.set_password(Some("…"));
            url.to_string()
        }
        _ => address.to_owned(),
    }
}
