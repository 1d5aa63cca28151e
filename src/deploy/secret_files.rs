//! Secrets that an app finds as files below `/run/secrets`: in memory, in a folder for each container that
//! only the agent's user and the container itself can reach. After a reboot they are gone, and are written
//! again when the agent starts the container.

use std::collections::{BTreeMap, HashSet};
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Agent;
use crate::ids::AgentId;
use crate::store::{StoreError, instances, jobs};

/// Where a container finds them.
pub const TARGET: &str = "/run/secrets";

/// Both in memory on most systems; the second is everybody's, on all of them.
const PLACES: [&str; 2] = ["/run", "/dev/shm"];

/// Writes the files of a container in place of those before, and returns their folder. Blocks.
pub fn put(
    agent: &AgentId,
    container: &str,
    files: &BTreeMap<String, String>,
) -> io::Result<PathBuf> {
    let folder = own(agent)?.join(container);
    // What runs in the container may be any user.
    make(&folder, 0o755)?;
    for entry in std::fs::read_dir(&folder)? {
        let entry = entry?;
        if !files.contains_key(&*entry.file_name().to_string_lossy()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    for (name, value) in files {
        let temp = folder.join(format!(".{name}"));
        let _ = std::fs::remove_file(&temp);
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&temp)?;
        file.write_all(value.as_bytes())?;
        file.set_permissions(Permissions::from_mode(0o444))?;
        std::fs::rename(&temp, folder.join(name))?;
    }
    Ok(folder)
}

/// This agent's folder in memory.
fn own(agent: &AgentId) -> io::Result<PathBuf> {
    let mut last = io::Error::other("there is no file system in memory");
    for place in PLACES {
        let folder = Path::new(place).join(format!("cutover-{agent}"));
        if !in_memory(Path::new(place)) {
            continue;
        }
        match make(&folder, 0o700) {
            Ok(()) => return Ok(folder),
            Err(error) => last = error,
        }
    }
    let why = "secrets with `file = true` need `/run` or `/dev/shm` in memory (tmpfs), open to the agent's user";
    Err(io::Error::new(last.kind(), format!("{why}: {last}")))
}

/// A folder of ours, and of nobody else who may have been there first.
fn make(folder: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = std::fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        let why = format!("`{}` belongs to somebody else", folder.display());
        return Err(io::Error::new(ErrorKind::PermissionDenied, why));
    }
    // Whatever the umask says.
    std::fs::set_permissions(folder, Permissions::from_mode(mode))
}

fn in_memory(path: &Path) -> bool {
    const TMPFS: i128 = 0x0102_1994;
    const RAMFS: i128 = 0x8584_58f6;
    let found = rustix::fs::statfs(path);
    found.is_ok_and(|it| matches!(it.f_type as i128, TMPFS | RAMFS))
}

/// Removes the files of containers that are gone.
pub async fn sweep(agent: &Agent) -> Result<(), StoreError> {
    let id = agent.id.clone();
    // A container is on record before it has files.
    let found = tokio::task::spawn_blocking(move || folders(&id));
    let found = found.await.map_err(|_| StoreError::Stopped)?;
    if found.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = found.iter().filter_map(|it| name(it)).collect();
    let read = agent.store.read(move |db| {
        let all = instances::all(db)?.into_iter();
        let mut used: HashSet<String> = all.map(|it| it.name).collect();
        for name in names {
            if jobs::get(db, &name)?.is_some_and(|job| job.ended_at.is_none()) {
                used.insert(name);
            }
        }
        Ok(used)
    });
    let used = read.await?;
    let remove = move || {
        let gone = found.iter();
        for folder in gone.filter(|it| name(it).is_some_and(|name| !used.contains(&name))) {
            if let Err(error) = std::fs::remove_dir_all(folder) {
                tracing::warn!(folder = %folder.display(), %error, "secrets of a container that is gone are left");
            }
        }
    };
    let _ = tokio::task::spawn_blocking(remove).await;
    Ok(())
}

fn name(folder: &Path) -> Option<String> {
    Some(folder.file_name()?.to_str()?.to_owned())
}

fn folders(agent: &AgentId) -> Vec<PathBuf> {
    let places = PLACES
        .iter()
        .map(|it| Path::new(it).join(format!("cutover-{agent}")));
    let entries = places.filter_map(|it| std::fs::read_dir(it).ok()).flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_s_files_are_its_secrets_and_no_others() {
        let agent: AgentId = AgentId::new();
        let files = |names: &[&str]| {
            let each = names
                .iter()
                .map(|it| ((*it).to_owned(), format!("of {it}")));
            each.collect::<BTreeMap<_, _>>()
        };
        let folder = put(&agent, "c", &files(&["A", "B"])).unwrap();
        assert_eq!(put(&agent, "c", &files(&["B", "C"])).unwrap(), folder);
        let mut names: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["B", "C"]);
        assert_eq!(std::fs::read_to_string(folder.join("C")).unwrap(), "of C");
        let own = folder.parent().unwrap();
        let mode = std::fs::metadata(own).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(folders(&agent), std::slice::from_ref(&folder));
        std::fs::remove_dir_all(own).unwrap();
    }
}
