//! The `Procfile` of a commit, which says what runs in its image.

use git2::ObjectType;

use super::BuildError;
use super::context::within;
use super::objects::Objects;
use crate::source::{Commit, Mirror};

const PROCFILE: &str = "Procfile";
const MAX: u64 = 64 << 10;

/// The text of the file in the build context's folder; `None` if there is none. Blocks.
pub fn procfile(
    mirror: &Mirror,
    commit: &Commit,
    context: &str,
) -> Result<Option<String>, BuildError> {
    let objects = Objects::open(mirror)?;
    let folder = objects.folder(&commit.tree, &within(context)?)?;
    let entry = folder.get_name(PROCFILE);
    let Some(entry) = entry.filter(|entry| entry.kind() == Some(ObjectType::Blob)) else {
        return Ok(None);
    };
    let blob = objects.blob(entry.id(), PROCFILE, MAX)?;
    Ok(Some(String::from_utf8_lossy(blob.content()).into_owned()))
}
