//! The repositories that a context is made of: the app's own and its submodules', with the files that Git
//! LFS keeps for each.

use git2::Oid;

use super::BuildError;
use super::lfs::Pointer;
use super::objects::Objects;
use super::walk::{List, Part, Submodule, Walk};
use crate::source::{Fetching, SourceError};

/// How many submodules may be within each other, and how many there may be.
const DEEPEST: usize = 8;
const MOST: usize = 200;

/// Lists all of them, and fetches what is not here yet.
pub(super) fn all(
    own: Part,
    mut walk: Walk<'_>,
    fetching: &Fetching<'_>,
) -> Result<(Vec<Part>, List), BuildError> {
    let mut parts = vec![own];
    let mut next = 0;
    while next < parts.len() {
        let found = walk.part(&parts[next], next)?;
        let part = &parts[next];
        if !found.pointers.is_empty() {
            resolve(part, &mut walk.list, &found.pointers, fetching)?;
        }
        let mut below = Vec::new();
        for submodule in found.submodules {
            below.extend(opened(part, submodule, fetching)?);
            if parts.len() + below.len() > MOST {
                let message = format!("it has more than {MOST} submodules");
                return Err(BuildError::TooLarge(message));
            }
        }
        parts.extend(below);
        next += 1;
    }
    walk.list.add_parents();
    Ok((parts, walk.list))
}

/// `None`: the submodule stays an empty folder.
fn opened(
    part: &Part,
    submodule: Submodule,
    fetching: &Fetching<'_>,
) -> Result<Option<Part>, BuildError> {
    let shown = String::from_utf8_lossy(&submodule.path).into_owned();
    if part.depth == DEEPEST {
        return Err(BuildError::Source(SourceError::Submodule {
            path: shown,
            why: format!("more than {DEEPEST} submodules are within each other"),
            hint: "check whether one contains itself, or exclude it in .dockerignore".into(),
        }));
    }
    let mirror = part.objects.mirror();
    let named = &submodule.named;
    let found = mirror.submodule(part.root, named, &shown, submodule.commit, fetching);
    let Some((mirror, commit)) = found? else {
        return Ok(None);
    };
    let objects = Objects::open(&mirror)?;
    let root = Oid::from_str(&commit.tree).map_err(|error| objects.damaged(&error))?;
    Ok(Some(Part {
        objects,
        root,
        folder: String::new(),
        path: submodule.path,
        fits: submodule.fits,
        depth: part.depth + 1,
    }))
}

/// Puts the files in the place of their pointers.
fn resolve(
    part: &Part,
    list: &mut List,
    pointers: &[(usize, Pointer)],
    fetching: &Fetching<'_>,
) -> Result<(), BuildError> {
    for (place, pointer) in pointers {
        // Too much of it is refused before any of it is fetched.
        list.of_size(*place, pointer.size)?;
    }
    let stored: Vec<_> = pointers.iter().map(|(_, stored)| stored.clone()).collect();
    let mirror = part.objects.mirror();
    let files = mirror.stored(&stored, fetching).map_err(|error| {
        let paths = pointers.iter().map(|(place, _)| {
            let path = list.entries.get(*place).map(|entry| entry.path.as_slice());
            String::from_utf8_lossy(path.unwrap_or_default()).into_owned()
        });
        match error {
            SourceError::Cancelled => BuildError::Cancelled,
            error => BuildError::Lfs {
                paths: paths.collect(),
                error: Box::new(error),
            },
        }
    })?;
    for ((place, _), file) in pointers.iter().zip(files) {
        list.stored(*place, file);
    }
    Ok(())
}
