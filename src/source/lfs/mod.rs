//! Git LFS: large files that a repository only names, by the hash of their content. They are fetched from
//! its server and kept beside the mirror, once for all commits.

mod action;
mod download;
mod request;
mod server;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::lock::beside;
use super::transport::{Failed, Failure, Session};
use super::{Fetching, Mirror, SourceError};
use crate::config::Repo;
use server::Server;

/// How many files are asked for at once.
const BATCH: usize = 100;
/// A file that no build has used for so long is fetched again if it is needed.
const KEPT: Duration = Duration::from_secs(14 * 24 * 3600);

/// A file that is not in git.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Stored {
    /// The SHA-256 of its content, in hex.
    pub(crate) oid: String,
    /// In bytes.
    pub(crate) size: u64,
}

impl Mirror {
    /// The paths of these files on this machine, each with the right content. What is not here yet is
    /// fetched.
    pub(crate) fn stored(
        &self,
        files: &[Stored],
        fetching: &Fetching<'_>,
    ) -> Result<Vec<PathBuf>, SourceError> {
        if let Repo::Local(path) = &self.repo {
            return files
                .iter()
                .map(|file| self.beside_it(path, file))
                .collect();
        }
        let folder = self.own.more().join("lfs");
        let missing: Vec<&Stored> = (files.iter())
            .filter(|file| !use_kept(&place(&folder, file), file.size))
            .collect();
        if !missing.is_empty() {
            let bytes: u64 = missing.iter().map(|file| file.size).sum();
            (fetching.log)(&format!(
                "fetching {} files, {} KiB, from Git LFS",
                missing.len(),
                bytes.div_ceil(1024)
            ));
            remove_old(&folder);
            self.fetch_stored(&folder, &missing, fetching)?;
        }
        Ok(files.iter().map(|file| place(&folder, file)).collect())
    }

    fn fetch_stored(
        &self,
        folder: &Path,
        missing: &[&Stored],
        fetching: &Fetching<'_>,
    ) -> Result<(), SourceError> {
        let shown = self.shown();
        let failed = |failure| match failure {
            Failure::Unreachable(why) => SourceError::Unreachable {
                repo: shown.clone(),
                why,
            },
            Failure::Refused(why) => SourceError::Refused {
                repo: shown.clone(),
                why,
            },
            Failure::Limited(why) => SourceError::Limited {
                repo: shown.clone(),
                why,
            },
            Failure::UnknownServer { why, hint } => SourceError::UnknownServer {
                repo: shown.clone(),
                why,
                hint,
            },
            Failure::Stopped if fetching.cancel.is_cancelled() => SourceError::Cancelled,
            Failure::Stopped => SourceError::TimedOut {
                repo: shown.clone(),
            },
        };
        let session = Session::new(
            &self.access,
            beside(&self.folder, ".host_key"),
            fetching.cancel,
            fetching.deadline,
            &Failed::default(),
        );
        let session = session.map(Arc::new).map_err(|error| {
            failed(Failure::Unreachable(format!(
                "this process has no room for a connection: {error}"
            )))
        })?;
        let server = Server::of(&self.repo, &session).map_err(failed)?;
        for batch in missing.chunks(BATCH) {
            for (file, action) in server.ask(batch).map_err(failed)? {
                let to = place(folder, file);
                download::download(&session, &action, file, &to).map_err(|error| match error {
                    download::Error::Failed(failure) => failed(failure),
                    download::Error::Disk(cause) => SourceError::Disk {
                        path: to.display().to_string(),
                        cause,
                    },
                })?;
            }
        }
        Ok(())
    }

    /// Where git-lfs puts the files that are pushed to a repository on this machine.
    fn beside_it(&self, repo: &Path, file: &Stored) -> Result<PathBuf, SourceError> {
        let git = match super::is_work_tree(repo) {
            true => repo.join(".git"),
            false => repo.to_owned(),
        };
        let path = place(&git.join("lfs/objects"), file);
        match download::is(&path, file) {
            true => Ok(path),
            false => Err(SourceError::Unreachable {
                repo: self.shown(),
                why: format!("its folder `lfs` has no file `{}`", file.oid),
            }),
        }
    }
}

fn place(folder: &Path, file: &Stored) -> PathBuf {
    let oid = &file.oid;
    folder.join(&oid[..2]).join(&oid[2..4]).join(oid)
}

/// Whether the file is there; its content was checked when it was put there.
fn use_kept(path: &Path, size: u64) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    let _ = file.set_modified(SystemTime::now());
    file.metadata().is_ok_and(|it| it.len() == size)
}

/// Removes what nobody has used for long. What cannot be removed stays.
fn remove_old(folder: &Path) {
    let list = |folder: PathBuf| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    };
    let files = list(folder.to_owned()).flat_map(list).flat_map(list);
    for file in files {
        let used = fs::metadata(&file).and_then(|it| it.modified());
        let is_old = |used: SystemTime| used.elapsed().is_ok_and(|age| age > KEPT);
        if used.is_ok_and(is_old) {
            let _ = fs::remove_file(file);
        }
    }
}

/// A failure to write, for the caller.
fn made(folder: Option<&Path>) -> io::Result<()> {
    folder.map_or(Ok(()), fs::create_dir_all)
}
