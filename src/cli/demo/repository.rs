//! A bare repository to commit to without a working tree and without the git program.

use std::path::{Path, PathBuf};

use git2::{
    Index, IndexEntry, IndexTime, Oid, Repository as Git, RepositoryInitOptions, Signature,
};

use super::sample::File;

/// A bare repository on this machine. It is opened again for each commit, because libgit2's own handle
/// must not be used by two threads.
#[derive(Debug, Clone)]
pub struct Repository {
    path: PathBuf,
    /// The author's address, unique to each repository: two demos or tests that commit the same files
    /// in the same second must not create the same commit, and with it the same image tag.
    author: String,
}

impl Repository {
    /// Creates an empty one at `path`.
    pub fn init(path: &Path) -> Result<Self, git2::Error> {
        let mut options = RepositoryInitOptions::new();
        options.bare(true).initial_head("main");
        Git::init_opts(path, &options)?;
        let salt = getrandom::u64().unwrap_or_default();
        Ok(Self {
            path: path.to_owned(),
            author: format!("ada@{salt:x}.example.com"),
        })
    }

    /// Commits `files`, and nothing else, on top of `branch`. Returns the old tip (40 zeros for a new
    /// branch) and the new one.
    pub fn commit(
        &self,
        branch: &str,
        files: &[File],
        message: &str,
    ) -> Result<(String, String), git2::Error> {
        let git = Git::open_bare(&self.path)?;
        let mut index = Index::new()?;
        for file in files {
            index.add(&entry(&git, file)?)?;
        }
        let tree = git.find_tree(index.write_tree_to(&git)?)?;
        let git_ref = format!("refs/heads/{branch}");
        let tip = match git.find_reference(&git_ref) {
            Ok(reference) => Some(reference.peel_to_commit()?),
            Err(error) if error.code() == git2::ErrorCode::NotFound => None,
            Err(error) => return Err(error),
        };
        let author = Signature::now("Ada Lovelace", &self.author)?;
        let parents: Vec<_> = tip.iter().collect();
        let new = git.commit(Some(&git_ref), &author, &author, message, &tree, &parents)?;
        let old = tip.map_or(Oid::ZERO_SHA1, |tip| tip.id());
        Ok((old.to_string(), new.to_string()))
    }
}

fn entry(git: &Git, file: &File) -> Result<IndexEntry, git2::Error> {
    Ok(IndexEntry {
        ctime: IndexTime::new(0, 0),
        mtime: IndexTime::new(0, 0),
        dev: 0,
        ino: 0,
        mode: file.mode,
        uid: 0,
        gid: 0,
        file_size: file.bytes.len() as u32,
        id: git.blob(&file.bytes)?,
        flags: 0,
        flags_extended: 0,
        path: file.path.clone().into_bytes(),
    })
}
