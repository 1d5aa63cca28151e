//! A repository on this machine, read in place: nothing is copied, however large it is.

use std::path::{Path, PathBuf};

use git2::{Config, ErrorCode, Repository};

use super::resolve::{is_ours, line, resolve};
use super::{Commit, Revision, SourceError, init};

/// How many refs are checked for breakage: a repository with more is not searched to the end.
const LOOKED_AT: usize = 1000;
/// How many broken refs are named in the log.
const NAMED: usize = 5;

/// Opens the repository at `path`, which is bare or a work tree.
pub(super) fn open(path: &Path) -> Result<Repository, SourceError> {
    init();
    let repo = || path.display().to_string();
    Repository::open(path).map_err(|error| match unsupported(path) {
        Some(why) => SourceError::Unsupported { repo: repo(), why },
        None if error.code() == ErrorCode::NotFound => SourceError::Unreachable {
            repo: repo(),
            why: line(error.message()),
        },
        None => SourceError::RepositoryDamaged {
            repo: repo(),
            why: line(error.message()),
        },
    })
}

/// The files of a repository, checked out.
pub struct WorkTree {
    pub root: PathBuf,
    /// The address of its `origin`.
    pub origin: Option<String>,
    /// The branch that is checked out.
    pub branch: Option<String>,
}

/// The work tree that `folder` is in.
pub fn work_tree(folder: &Path) -> Option<WorkTree> {
    init();
    let git = Repository::discover(folder).ok()?;
    let root = git.workdir()?.to_owned();
    let origin = git.find_remote("origin").ok();
    let origin = origin.and_then(|it| it.url().ok().map(str::to_owned));
    let branch = checked_out(&git);
    Some(WorkTree {
        root,
        origin,
        branch,
    })
}

/// The branch that HEAD names, even before its first commit.
fn checked_out(git: &Repository) -> Option<String> {
    let head = git.find_reference("HEAD").ok()?;
    let branch = head.symbolic_target().ok()??.strip_prefix("refs/heads/")?;
    Some(branch.to_owned())
}

/// Finds the wanted commit. A ref that the app does not deploy is not followed: if it is broken, it is
/// only named in the log.
pub(super) fn find(
    git: &Repository,
    revision: &Revision,
    repo: &str,
    log: &dyn Fn(&str),
) -> Result<Commit, SourceError> {
    let found = resolve(git, revision, repo);
    if matches!(found, Err(SourceError::NoSuchRef { .. })) && is_empty(git) {
        return Err(SourceError::Empty {
            repo: repo.to_owned(),
        });
    }
    for name in broken(git).take(NAMED) {
        log(&format!(
            "warning: `{}` of the repository is broken and was ignored; run `git fsck` for details",
            line(&name)
        ));
    }
    found
}

/// Why libgit2 cannot read the repository at `path`, although git may be able to.
pub fn unsupported(path: &Path) -> Option<String> {
    init();
    let config = Config::open(&git_dir(path).join("config")).ok()?;
    if config
        .get_string("extensions.objectformat")
        .is_ok_and(|format| !format.eq_ignore_ascii_case("sha1"))
    {
        return Some(SHA256.into());
    }
    match config.get_string("extensions.refstorage") {
        Ok(format) if !format.eq_ignore_ascii_case("files") => Some(format!(
            "it stores its refs as `{}`, which is not supported: run \
             `git refs migrate --ref-format=files` in it",
            line(&format)
        )),
        _ => None,
    }
}

/// Why commits of such a repository cannot be deployed.
pub(super) const SHA256: &str = "its object ids are SHA-256, which is not supported: use a repository with SHA-1 ids \
     (`git init --object-format=sha1`)";

/// The branch that HEAD of the repository at `path` names, even before its first commit.
pub(super) fn default_branch(path: &Path) -> Option<String> {
    checked_out(&open(path).ok()?)
}

/// Whether `path` is a work tree: files checked out next to a `.git` folder.
pub fn is_work_tree(path: &Path) -> bool {
    path.join(".git").exists() && !path.join("objects").is_dir()
}

/// The folder of git's own files: the folder itself, or `.git` in a work tree.
fn git_dir(path: &Path) -> PathBuf {
    match is_work_tree(path) {
        true => path.join(".git"),
        false => path.to_owned(),
    }
}

fn is_empty(git: &Repository) -> bool {
    let mut names = git.references().into_iter().flatten().flatten();
    !names.any(|found| found.name().is_ok_and(is_ours))
}

/// The names of branches and tags that point to a missing object.
fn broken(git: &Repository) -> impl Iterator<Item = String> {
    let odb = git.odb().ok();
    let refs = git.references().into_iter().flatten();
    refs.take(LOOKED_AT).filter_map(move |found| {
        let found = found.ok()?;
        let name = found.name().ok().filter(|name| is_ours(name))?.to_owned();
        // A symbolic ref to a branch that does not exist yet is not broken.
        let target = found.target()?;
        let gone = odb.as_ref().is_some_and(|odb| !odb.exists(target));
        gone.then_some(name)
    })
}
