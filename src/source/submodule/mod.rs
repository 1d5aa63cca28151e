//! Submodules: repositories of their own, each at the commit that the repository above it records.

mod gitmodules;
mod locate;

use std::time::Instant;

use git2::{Oid, Repository};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::{Commit, Mirror, Revision, SourceError};
use crate::config::Repo;
use crate::ids::CommitId;

/// In bytes.
const LONGEST: usize = 1 << 20;

/// What a fetch in the midst of a build needs to know.
#[derive(Clone, Copy)]
pub struct Fetching<'a> {
    pub log: &'a dyn Fn(&str),
    pub cancel: &'a CancellationToken,
    pub deadline: Instant,
}

impl Mirror {
    /// The repository of the submodule at `path`, with `commit`, which is fetched if it is not there yet;
    /// `root` is the root folder of the commit that records it, and `shown` the whole path for people, which begins
    /// outside of the submodules that it is in.
    /// `None`: submodules stay empty.
    pub(crate) fn submodule(
        &self,
        root: Oid,
        path: &str,
        shown: &str,
        commit: Oid,
        fetching: &Fetching<'_>,
    ) -> Result<Option<(Self, Commit)>, SourceError> {
        let own = &self.own;
        if own.access.without_submodules {
            return Ok(None);
        }
        let refused = |refused: locate::Refused| SourceError::Submodule {
            path: shown.to_owned(),
            why: refused.why,
            hint: refused.hint,
        };
        let git = self.open()?;
        let url = address(&git, root, path).ok_or_else(|| {
            refused(locate::Refused {
                why: "its address is not in .gitmodules".into(),
                hint: "commit .gitmodules, remove the submodule (`git rm`), or exclude it in \
                       .dockerignore"
                    .into(),
            })
        })?;
        let (repo, access) =
            locate::locate(&own.repo, &own.access, &self.repo, &url).map_err(refused)?;
        let name = match &repo {
            Repo::Http(text) | Repo::Ssh(text) => text.clone(),
            Repo::Local(path) => path.display().to_string(),
            Repo::Image(image) => image.to_string(),
        };
        let name = hex::encode(&Sha256::digest(name)[..16]);
        let mirror = Self {
            folder: own.more().join("modules").join(format!("{name}.git")),
            repo,
            access,
            own: own.clone(),
        };
        let id: CommitId = (commit.to_string().parse()).map_err(|_| SourceError::Submodule {
            path: shown.to_owned(),
            why: "it is at no commit".into(),
            hint: "check the repository with `git fsck`".into(),
        })?;
        if let Some(found) = mirror.fetched(&id) {
            return Ok(Some((mirror, found)));
        }
        (fetching.log)(&format!(
            "fetching the submodule `{shown}` at {}",
            id.short()
        ));
        let revision = Revision::Recorded(id);
        let Fetching {
            log,
            cancel,
            deadline,
        } = *fetching;
        match mirror.fetch_any(&revision, log, cancel, deadline) {
            Ok(found) => Ok(Some((mirror, found))),
            Err(SourceError::Cancelled) => Err(SourceError::Cancelled),
            Err(error) => Err(SourceError::InSubmodule {
                path: shown.to_owned(),
                error: Box::new(error),
            }),
        }
    }
}

fn address(git: &Repository, root: Oid, path: &str) -> Option<String> {
    let tree = git.find_tree(root).ok()?;
    let entry = tree.get_name(".gitmodules")?;
    let blob = git.find_blob(entry.id()).ok()?;
    if blob.size() > LONGEST {
        return None;
    }
    gitmodules::url(&String::from_utf8_lossy(blob.content()), path)
}
