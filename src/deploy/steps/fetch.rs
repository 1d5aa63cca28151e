//! Bring the commit here.

use std::time::{Duration, Instant};

use crate::deploy::line::{Done, Line, Stop};
use crate::source::{self, Commit, Mirror, SourceError};
use crate::store::deployments::{self, Want};

/// A repository that takes longer to fetch is taken for one that never ends.
const DEADLINE: Duration = Duration::from_secs(10 * 60);

pub fn mirror(line: &Line<'_>) -> Mirror {
    let folder = line
        .agent
        .config
        .agent
        .data_dir
        .join("repos")
        .join(format!("{}.git", line.app.name));
    Mirror::new(folder, line.app.repo.clone(), line.app.source.clone())
}

pub async fn fetch(line: &Line<'_>, want: &Want) -> Result<Done<Commit>, Stop> {
    let branch = line.app.branch.clone();
    let want = match want {
        Want::Pushed(id) => source::Want::Commit {
            id: id.clone(),
            branch,
        },
        Want::Named(text) => source::Want::Named(text.clone()),
        Want::Branch | Want::Release(_) => source::Want::Branch(branch),
    };
    let mirror = mirror(line);
    let (log, cancel) = (line.log.clone(), line.cancel.clone());
    let deadline = Instant::now() + DEADLINE;
    let fetch = tokio::task::spawn_blocking(move || {
        mirror.fetch(&want, &|text| log.line(text), &cancel, deadline)
    });
    let outcome = fetch
        .await
        .map_err(|e| Stop::failed("fetch", format!("fetching broke: {e}")))?;
    let commit = outcome.map_err(stopped)?;
    let detail = format!("{} {}", commit.id.short(), commit.message);
    let (id, found) = (line.id.clone(), commit.clone());
    Ok(Done::new(commit, detail).recording(move |db| {
        deployments::set_commit(db, &id, &found.id, &found.message, &found.author)
    }))
}

fn stopped(error: SourceError) -> Stop {
    match error {
        SourceError::Cancelled => Stop::Cancelled,
        other => Stop::failed(other.code(), format!("{other}; {}", other.hint())),
    }
}
