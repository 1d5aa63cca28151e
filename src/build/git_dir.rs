//! `build.git_dir`: the context has a `.git`, as a clone has it, but with one commit.

use std::collections::HashMap;

use super::BuildError;
use super::checkout::{self, Work};
use super::ignore::{Fits, Ignore};
use super::walk::{Kind, List};
use crate::source::{Commit, Fetching, Mirror};

const NAME: &str = ".git";

/// Adds it, without what the rules exclude. The files are there for as long as what is returned. Blocks.
pub(super) fn add(
    mirror: &Mirror,
    commit: &Commit,
    ignore: &Ignore,
    list: &mut List,
    fetching: &Fetching<'_>,
) -> Result<Work, BuildError> {
    let has_one = |path: &[u8]| path.split(|byte| *byte == b'/').next() == Some(NAME.as_bytes());
    if list.entries.iter().any(|entry| has_one(&entry.path)) {
        return Err(BuildError::BadName(NAME.to_owned()));
    }
    let work = Work::at(mirror.more().join("git-dir")).map_err(|error| BuildError::Checkout {
        path: NAME.to_owned(),
        why: error.to_string(),
    })?;
    let folder = work.path().join(NAME);
    mirror.write_git_dir(commit, &folder, fetching)?;
    let mut made = checkout::list(&folder, NAME)?.entries;
    made.sort_by(|a, b| a.path.cmp(&b.path));
    let mut fits: HashMap<Vec<u8>, Fits> = HashMap::new();
    let mut added = false;
    for entry in made {
        let above = entry.path.iter().rposition(|byte| *byte == b'/');
        let above = above.and_then(|end| fits.get(&entry.path[..end]));
        let text = String::from_utf8_lossy(&entry.path);
        let (excluded, own) = ignore.excludes(&text, above.unwrap_or(&Fits::default()));
        drop(text);
        if matches!(entry.kind, Kind::Folder) {
            fits.insert(entry.path.clone(), own);
        }
        if excluded {
            continue;
        }
        if let Kind::File { size, .. } = entry.kind {
            list.grow(size)?;
            added = true;
        }
        list.push(entry.path, entry.kind)?;
    }
    list.add_parents();
    if !added {
        (fetching.log)(
            "[build] warning: `build.git_dir` has no effect: .dockerignore excludes `.git`",
        );
    }
    Ok(work)
}
