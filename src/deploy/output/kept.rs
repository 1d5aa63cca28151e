//! The last lines of instances whose containers are gone.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Last, Query, Said, last};
use crate::deploy::{Agent, masks};
use crate::engine::output::Wanted;
use crate::ids::AppName;
use crate::store::instances::Instance;

/// How many lines of an instance that is gone are kept, and for how many instances of an app.
const KEPT_LINES: usize = 500;
const KEPT_BYTES: usize = 256 << 10;
const KEPT_INSTANCES: usize = 20;
/// How long keeping them may delay the removal of a container.
const KEEP: Duration = Duration::from_secs(5);

pub(super) fn folder(agent: &Agent, app: &AppName) -> PathBuf {
    let data_dir = agent.in_force().config.agent.data_dir.clone();
    data_dir.join("output").join(app.as_str())
}

/// Keeps the last lines of an instance whose container is about to be removed. What cannot be kept is
/// lost: it must not hold up a deployment.
pub async fn keep(agent: &Agent, instance: &Instance) {
    let query = Query {
        lines: KEPT_LINES,
        ..Query::default()
    };
    let wanted = Wanted {
        follow: false,
        since: None,
        tail: Some(KEPT_LINES),
    };
    let mask = masks::of_app(agent, &instance.app).await;
    let read = tokio::time::timeout(KEEP, last(agent, instance, wanted, &query, &mask));
    let Ok(Ok(lines)) = read.await else { return };
    let mut kept = Last::new(KEPT_LINES, KEPT_BYTES);
    lines.into_iter().for_each(|said| kept.push(said));
    let (folder, name) = (folder(agent, &instance.app), instance.name.clone());
    let write = tokio::task::spawn_blocking(move || write(&folder, &name, &kept.lines));
    if let Ok(Err(error)) = write.await {
        tracing::warn!(container = instance.name, %error, "its last lines are not kept");
    }
}

/// Forgets the output of an app that is removed.
pub async fn forget(agent: &Agent, app: &AppName) {
    let _ = tokio::fs::remove_dir_all(folder(agent, app)).await;
}

/// Carries the output that is kept over to an app's new name.
pub async fn rename(agent: &Agent, from: &AppName, to: &AppName) {
    let _ = tokio::fs::rename(folder(agent, from), folder(agent, to)).await;
}

fn write(folder: &Path, name: &str, lines: &VecDeque<Said>) -> std::io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    let mut text = String::new();
    for said in lines {
        text += &serde_json::to_string(said)?;
        text.push('\n');
    }
    std::fs::write(folder.join(name), text)?;
    let mut files: Vec<_> = std::fs::read_dir(folder)?
        .flatten()
        .filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path())))
        .collect();
    files.sort();
    let beyond = files.len().saturating_sub(KEPT_INSTANCES);
    files[..beyond]
        .iter()
        .try_for_each(|(_, path)| std::fs::remove_file(path))
}

/// The lines that are kept of instances that are gone. Blocks.
pub(super) fn kept(folder: &Path, query: &Query) -> Vec<Said> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = files.filter(|file| query.wants_instance(&file.file_name().to_string_lossy()));
    let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    let mut lines = Vec::new();
    for text in texts {
        let read = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.extend(read.filter(|said| query.wants(said)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::output::tests::said;

    #[test]
    fn the_lines_of_the_last_instances_are_kept_and_found() {
        let folder = tempfile::tempdir().unwrap();
        let lines = VecDeque::from([
            said("1970-01-01T00:00:09.5Z", "a"),
            said("1970-01-01T00:00:10Z", "b"),
        ]);
        for number in 0..KEPT_INSTANCES + 5 {
            write(folder.path(), &format!("cutover-hello-d-{number}"), &lines).unwrap();
        }
        let find = |query: Query| kept(folder.path(), &query).len();
        assert_eq!(find(Query::default()), 2 * KEPT_INSTANCES);
        let late = Query {
            since: Some(10),
            ..Query::default()
        };
        assert_eq!(find(late), KEPT_INSTANCES);
        let one = Query {
            instance: Some("24".into()),
            grep: Some("b".into()),
            ..Query::default()
        };
        assert_eq!(find(one), 1);
    }
}
