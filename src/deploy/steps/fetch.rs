//! Bring the commit here.

use std::time::{Duration, Instant};

use crate::deploy::line::{Done, Line, Stop};
use crate::ids::CommitId;
use crate::source::{self, Commit, Mirror, SourceError};
use crate::store::deployments::{self, Want};
use crate::store::{apps, releases};

/// A repository that takes longer to fetch is taken for one that never ends.
const DEADLINE: Duration = Duration::from_secs(10 * 60);

pub fn mirror(line: &Line<'_>) -> Mirror {
    let repos = line.agent.config.agent.data_dir.join("repos");
    let folder = repos.join(format!("{}.git", line.app.name));
    Mirror::new(folder, line.app.repo.clone(), line.app.source.clone())
}

pub async fn fetch(
    line: &Line<'_>,
    want: &Want,
    git_ref: Option<&str>,
) -> Result<Done<Commit>, Stop> {
    let pushed = |folder| git_ref.and_then(|name| name.strip_prefix(folder));
    let branch = match want {
        Want::Pushed(_) => pushed("refs/heads/").unwrap_or(&line.app.branch).to_owned(),
        _ => line.app.branch.clone(),
    };
    let tag = pushed("refs/tags/").map(str::to_owned);
    let live = live_commit(line).await?;
    let mirror = mirror(line);
    let (log, cancel, want) = (line.log.clone(), line.cancel.clone(), want.clone());
    let fetch = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + DEADLINE;
        let say = |text: &str| log.line(text);
        let get = |want| mirror.fetch(&want, &say, &cancel, deadline);
        match (want, tag) {
            (Want::Pushed(_), Some(tag)) => get(source::Want::Tag(tag)).map(Ok),
            (Want::Pushed(id), None) => {
                let commit = get(source::Want::Commit {
                    id,
                    branch: branch.clone(),
                })?;
                newest(&mirror, commit, &branch, live.as_ref(), &say)
            }
            (Want::Named(text), _) => get(source::Want::Named(text)).map(Ok),
            (Want::Branch | Want::Release(_), _) => get(source::Want::Branch(branch)).map(Ok),
        }
    });
    let outcome = fetch
        .await
        .map_err(|e| Stop::failed("fetch", format!("fetching broke: {e}")))?;
    let commit = outcome.map_err(stopped)?.map_err(Stop::Superseded)?;
    let detail = format!("{} {}", commit.id.short(), commit.message);
    let (id, found) = (line.id.clone(), commit.clone());
    Ok(Done::new(commit, detail).recording(move |db| {
        deployments::set_commit(db, &id, &found.id, &found.message, &found.author)
    }))
}

async fn live_commit(line: &Line<'_>) -> Result<Option<CommitId>, Stop> {
    let app = line.app.name.clone();
    let live = line
        .agent
        .store
        .read(move |db| match apps::serving(db, &app)?.live {
            Some(live) => Ok(releases::get(db, &live)?.map(|release| release.commit)),
            None => Ok(None),
        });
    Ok(live.await?)
}

/// What a push stands for now. Deliveries come late and out of order, so the branch itself is asked:
/// its tip is deployed, whichever commit the push named. A push that is older than what is live, on a
/// branch whose tip is live, has nothing left to do: the inner `Err` says so.
fn newest(
    mirror: &Mirror,
    pushed: Commit,
    branch: &str,
    live: Option<&CommitId>,
    say: &impl Fn(&str),
) -> Result<Result<Commit, String>, SourceError> {
    // Every branch came with the commit: the repository is not asked a second time.
    let tip = mirror.find(&source::Want::Branch(branch.to_owned()))?;
    if tip.id == pushed.id {
        return Ok(Ok(pushed));
    }
    let (old, new) = (pushed.id.short(), tip.id.short());
    if live == Some(&tip.id) && mirror.is_ancestor(&pushed.id, &tip.id)? {
        return Ok(Err(format!(
            "`{new}`, which is live, is newer than the pushed `{old}`"
        )));
    }
    say(&format!(
        "`{branch}` has moved on from `{old}` to `{new}`, which is deployed"
    ));
    Ok(Ok(tip))
}

fn stopped(error: SourceError) -> Stop {
    match error {
        SourceError::Cancelled => Stop::Cancelled,
        other => Stop::failed(other.code(), format!("{other}; {}", other.hint())),
    }
}
