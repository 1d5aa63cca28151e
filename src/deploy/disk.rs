//! Room for a build: a disk that is full in the middle of one may take what is live with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::images;
use super::line::{Line, Stop};
use super::space::Space;

/// Files and folders that a build can do with.
const INODES: u64 = 10_000;

/// How long the other apps, as far as nothing is being deployed for them, have to remove what they do not need.
const OTHERS: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);

/// An error if there is too little room, even after what nobody needs has been removed.
pub async fn check(line: &Line<'_>) -> Result<(), Stop> {
    let folders = folders(line).await;
    let lack = async || lack(line, folders.clone()).await;
    if lack().await.is_none() {
        return Ok(());
    }
    if let Err(error) = images::tidy(line.agent, line.app).await {
        tracing::warn!(%error, "failed to make room for a build");
    }
    let mut lacks = lack().await;
    if lacks.is_some() {
        line.agent.hub.tidy();
        let begun = Instant::now();
        while begun.elapsed() < OTHERS && lacks.is_some() {
            tokio::time::sleep(PAUSE).await;
            lacks = lack().await;
        }
    }
    match lacks {
        None => Ok(()),
        Some(why) => Err(Stop::failed(
            "no_space",
            format!(
                "{why}; make room (`docker system df` says what takes it, `cutover gc` finds what is left \
                 over), keep fewer releases (`deploy.keep_releases`), or lower `docker.min_free` in \
                 deploy.toml"
            ),
        )),
    }
}

/// The folders on the disks that a build needs.
async fn folders(line: &Line<'_>) -> Vec<PathBuf> {
    let mut folders = vec![line.agent.in_force().config.agent.data_dir.clone()];
    // An engine that is too busy to say it builds all the same.
    folders.extend(line.agent.engine.folders().await.unwrap_or_default());
    folders
}

/// What there is too little of.
async fn lack(line: &Line<'_>, folders: Vec<PathBuf>) -> Option<String> {
    let least = line.agent.in_force().config.docker.min_free;
    let found = tokio::task::spawn_blocking(move || {
        folders
            .into_iter()
            .find_map(|folder| lack_of(&folder, least))
    });
    found.await.unwrap_or_default()
}

fn lack_of(folder: &Path, least: u64) -> Option<String> {
    // A folder of another machine or of another user says nothing.
    let space = Space::of(folder).ok()?;
    let shown = folder.display();
    if space.free < least {
        let (free, least) = (mib(space.free), mib(least));
        return Some(format!(
            "the disk of `{shown}` has only {free} free, not {least}"
        ));
    }
    let files = space.files.filter(|files| *files < INODES && least > 0)?;
    Some(format!(
        "the disk of `{shown}` has room for only {files} more files"
    ))
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_is_named_with_its_disk() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(lack_of(folder.path(), 1), None);
        let why = lack_of(folder.path(), u64::MAX).unwrap();
        assert!(why.contains(&folder.path().display().to_string()), "{why}");
        assert_eq!(lack_of(Path::new("/nowhere"), u64::MAX), None);
    }
}
