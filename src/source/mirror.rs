//! An app's bare mirror of a remote repository: created, kept up to date, and created anew when it is
//! damaged. A repository on this machine is its own mirror.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use git2::{ErrorClass, Repository};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::fetch::Fetch;
use super::own::Own;
use super::transport::Failed;
use super::{Commit, Revision, SourceError, init, local, lock, resolve, signature};
use crate::config::{Repo, Source};
use crate::ids::CommitId;

/// Each fetch leaves a pack behind, and every object look-up searches them all: a mirror with this many
/// packs is created anew.
const PACKS: usize = 100;

/// The mirror of one app's repository. Its methods block.
#[derive(Debug, Clone)]
pub struct Mirror {
    pub(super) folder: PathBuf,
    pub(super) repo: Repo,
    pub(super) access: Source,
    pub(super) own: Own,
}

impl Mirror {
    /// The mirror in `folder` (`data_dir/repos/<app>.git`), which the first fetch creates.
    pub fn new(folder: PathBuf, repo: Repo, access: Source) -> Self {
        Self {
            own: Own::of(folder.clone(), repo.clone(), access.clone()),
            folder,
            repo,
            access,
        }
    }

    /// The folder for what else is kept of its app.
    pub(crate) fn more(&self) -> PathBuf {
        self.own.more()
    }

    /// A fetch into it; `shown` is the repository's address as errors may show it.
    pub(super) fn fetch_with<'a>(
        &'a self,
        shown: &'a str,
        log: &'a dyn Fn(&str),
        cancel: &'a CancellationToken,
        deadline: Instant,
    ) -> Fetch<'a> {
        Fetch {
            repo: &self.repo,
            shown,
            source: &self.access,
            mirror: &self.folder,
            log,
            cancel,
            deadline,
            failed: Failed::default(),
        }
    }

    /// The commit, if it is there without a fetch.
    pub(super) fn fetched(&self, id: &CommitId) -> Option<Commit> {
        resolve::by_id(&self.open().ok()?, id, &self.shown()).ok()
    }

    /// Fetches the wanted commit, without its history, and returns it. One that is not signed as deploy.toml
    /// requires is an error. Ends soon after `cancel` or `deadline`, and when the server is silent for
    /// 30 seconds. Not to be called from async code.
    pub fn fetch(
        &self,
        revision: &Revision,
        log: &dyn Fn(&str),
        cancel: &CancellationToken,
        deadline: Instant,
    ) -> Result<Commit, SourceError> {
        let commit = self.fetch_any(revision, log, cancel, deadline)?;
        if let Some(signers) = &self.access.signers {
            let by = signature::check(&self.open()?, &commit.id, signers, &self.more())?;
            log(&format!("`{}` is signed by {by}", commit.id.short()));
        }
        Ok(commit)
    }

    /// The same, whoever signed it: what a signed commit records is as good as signed.
    pub(super) fn fetch_any(
        &self,
        revision: &Revision,
        log: &dyn Fn(&str),
        cancel: &CancellationToken,
        deadline: Instant,
    ) -> Result<Commit, SourceError> {
        init();
        let shown = self.shown();
        let fetch = self.fetch_with(&shown, log, cancel, deadline);
        fetch.going()?;
        if let Repo::Image(_) = &self.repo {
            let why = "it is an image in a registry, which has no commits".into();
            return Err(SourceError::Unsupported {
                repo: shown.clone(),
                why,
            });
        }
        if let Repo::Local(path) = &self.repo {
            let found = local::find(&local::open(path)?, revision, &shown, log);
            return found.map_err(broken);
        }
        if let Some(parent) = self.folder.parent() {
            fs::create_dir_all(parent).map_err(|cause| self.disk(cause))?;
        }
        let _lock = lock::take(&self.folder, cancel, deadline)?;
        if packs(&self.folder) >= PACKS {
            log("creating the mirror anew: it holds too many packs");
            return self.make(&fetch, revision);
        }
        match self.open().and_then(|git| fetch.get(&git, revision)) {
            Err(SourceError::MirrorDamaged { why, .. }) => {
                if self.folder.exists() {
                    log(&format!("the mirror is damaged ({why}); creating it anew"));
                }
                // If a new mirror has the fault too, the fault is in the repository.
                self.make(&fetch, revision).map_err(broken)
            }
            done => done,
        }
    }

    /// The repository's default branch; `None` if it cannot be reached.
    pub fn default_branch(&self, deadline: Instant) -> Option<String> {
        init();
        if let Repo::Local(path) = &self.repo {
            return local::default_branch(path);
        }
        let shown = self.shown();
        let cancel = CancellationToken::new();
        let fetch = self.fetch_with(&shown, &|_| {}, &cancel, deadline);
        fetch.default_branch().ok()?
    }

    /// A commit that has been fetched; `None` if it has not, or is not there any more.
    pub fn kept(&self, commit: &CommitId) -> Option<Commit> {
        resolve::by_id(&self.open().ok()?, commit, &self.shown()).ok()
    }

    /// A commit's whole message; `None` if the commit has not been fetched.
    pub fn message(&self, commit: &CommitId) -> Option<String> {
        super::bare::message_in(&self.open().ok()?, commit)
    }

    /// Opens the mirror for reading.
    pub(crate) fn open(&self) -> Result<Repository, SourceError> {
        init();
        if let Repo::Local(path) = &self.repo {
            return local::open(path);
        }
        Repository::open_bare(&self.folder).map_err(|e| resolve::damaged(&self.shown(), &e))
    }

    /// The error for an object that cannot be read. A missing object means that the mirror is
    /// damaged: it is discarded (without HEAD it is not a repository, and the next fetch creates it
    /// anew). A malformed object is malformed in the repository too.
    pub(crate) fn unreadable(&self, error: &git2::Error) -> SourceError {
        let damaged = resolve::damaged(&self.shown(), error);
        if matches!(self.repo, Repo::Local(_)) || error.class() == ErrorClass::Tree {
            return broken(damaged);
        }
        let _ = fs::remove_file(self.folder.join("HEAD"));
        damaged
    }

    /// Creates the mirror in a temporary folder and renames it when it is complete, so that a partial
    /// one is never taken for the real one.
    ///
    /// Nothing in it is synced to disk: objects lost in a power failure are detected by their hashes
    /// and fetched again. That is rare, whereas five syncs would slow down every fetch.
    fn make(&self, fetch: &Fetch<'_>, revision: &Revision) -> Result<Commit, SourceError> {
        let making = lock::beside(&self.folder, ".making");
        remove(&making).map_err(|cause| self.disk(cause))?;
        let made = Repository::init_bare(&making)
            .map_err(|e| self.disk(io::Error::other(e.message().to_owned())))
            .and_then(|git| fetch.get(&git, revision));
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
            Repo::Image(image) => image.to_string(),
        }
    }

    /// The same, if it is one that others can use too.
    pub(crate) fn address(&self) -> Option<String> {
        matches!(self.repo, Repo::Http(_) | Repo::Ssh(_)).then(|| self.shown())
    }

    fn disk(&self, cause: io::Error) -> SourceError {
        SourceError::Disk {
            path: self.folder.display().to_string(),
            cause,
        }
    }
}

/// The same error, but saying that the repository itself is damaged, not the mirror.
fn broken(error: SourceError) -> SourceError {
    match error {
        SourceError::MirrorDamaged { repo, why } => SourceError::RepositoryDamaged { repo, why },
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

/// A repository's address without its password, for display.
pub(crate) fn without_password(address: &str) -> String {
    match Url::parse(address) {
        Ok(mut url) if url.password().is_some() => {
            let _ = url.set_password(Some("…"));
            url.to_string()
        }
        _ => address.to_owned(),
    }
}
