//! An app's bare mirror: made, kept up to date, and made again when it is damaged.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use git2::Repository;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::fetch::Fetch;
use super::{Commit, SourceError, Want, init, lock, resolve};
use crate::config::{Repo, Source};
use crate::ids::CommitId;

/// A mirror of more packs than this is tidied.
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

    /// Fetches every branch and tag and returns the wanted commit. Ends soon after `cancel` or
    /// `deadline`: while a server is silent that takes up to 30 seconds.
    pub fn fetch(
        &self,
        want: &Want,
        log: &dyn Fn(&str),
        cancel: &CancellationToken,
        deadline: Instant,
    ) -> Result<Commit, SourceError> {
        init();
        if let Some(parent) = self.folder.parent() {
            fs::create_dir_all(parent).map_err(|cause| self.disk(cause))?;
        }
        let shown = self.shown();
        let fetch = Fetch {
            repo: &self.repo,
            shown: &shown,
            source: &self.access,
            log,
            cancel,
            deadline,
        };
        let _lock = lock::take(&self.folder, cancel, deadline)?;
        let update = |git| {
            fetch.all(&git)?;
            look(&git, &fetch, want)
        };
        let found = match self.open().and_then(update) {
            Err(SourceError::Damaged { why, .. }) => {
                if self.folder.exists() {
                    log(&format!("the mirror is damaged ({why}); making it again"));
                }
                self.make(&fetch)?;
                look(&self.open()?, &fetch, want)
            }
            done => done,
        };
        if found.is_ok() && packs(&self.folder) > PACKS {
            self.tidy(&fetch);
        }
        found
    }

    /// Each fetch leaves a pack behind, and every look for an object asks them all: copies what the
    /// branches and tags lead to into one. That it fails is no harm.
    fn tidy(&self, fetch: &Fetch<'_>) {
        (fetch.log)("tidying the mirror");
        let repo = Repo::Local(self.folder.clone());
        let own = Fetch {
            repo: &repo,
            ..*fetch
        };
        if let Err(error) = self.make(&own) {
            tracing::warn!(%error, mirror = %self.folder.display(), "cannot tidy a mirror");
        }
    }

    /// A commit that was fetched before.
    pub fn read(&self, commit: &CommitId) -> Result<Commit, SourceError> {
        resolve::by_id(&self.open()?, commit, &self.shown())
    }

    /// What the last fetch brought, without asking the repository again.
    pub fn find(&self, want: &Want) -> Result<Commit, SourceError> {
        resolve::resolve(&self.open()?, want, &self.shown())
    }

    /// The mirror for reading.
    pub(crate) fn open(&self) -> Result<Repository, SourceError> {
        init();
        Repository::open_bare(&self.folder).map_err(|e| resolve::damaged(&self.shown(), &e))
    }

    /// Gives up a mirror in which something is missing: without HEAD it is no repository, and the
    /// next fetch makes it again.
    pub(crate) fn discard(&self) {
        let _ = fs::remove_file(self.folder.join("HEAD"));
    }

    /// Makes the mirror in a folder beside and puts it in place when it is whole, so that a half-made
    /// one is never taken for the real one.
    ///
    /// Nothing in it is forced to the disk: what a power cut takes from a mirror is found missing by
    /// its hash, and fetched again, which is rarer than the five syncs of each fetch are slow.
    fn make(&self, fetch: &Fetch<'_>) -> Result<(), SourceError> {
        let making = lock::beside(&self.folder, ".making");
        remove(&making).map_err(|cause| self.disk(cause))?;
        let made = Repository::init_bare(&making)
            .map_err(|e| self.disk(io::Error::other(e.message().to_owned())))
            .and_then(|git| fetch.all(&git));
        if made.is_err() {
            let _ = remove(&making);
            return made;
        }
        self.replace(&making).map_err(|cause| self.disk(cause))
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

/// Finds the wanted commit in what was fetched; one that a forced push has left behind is asked for by
/// itself, since some servers still hand it out.
fn look(git: &Repository, fetch: &Fetch<'_>, want: &Want) -> Result<Commit, SourceError> {
    match (resolve::resolve(git, want, fetch.shown), want) {
        (Err(missing @ SourceError::NoSuchCommit { .. }), Want::Commit { id, .. }) => {
            match fetch.one(git, id) {
                Ok(()) => resolve::resolve(git, want, fetch.shown),
                Err(_) => Err(missing),
            }
        }
        (found, _) => found,
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
