//! Fetch the commit.

use std::time::{Duration, Instant};

use crate::config::{App, PathFilter};
use crate::deploy::line::{Done, Line, Stop};
use crate::deploy::steps::image;
use crate::deploy::steps::standing::standing;
use crate::deploy::{Agent, filter};
use crate::ids::CommitId;
use crate::source::{self, Changed, Commit, Mirror, SourceError};
use crate::store::deployments::{self, Goal};
use crate::store::pushes;

/// A fetch that takes longer is assumed to hang.
const DEADLINE: Duration = Duration::from_secs(10 * 60);

pub fn mirror(line: &Line<'_>) -> Mirror {
    mirror_of(line.agent, line.app)
}

/// The mirror of an app's repository.
pub fn mirror_of(agent: &Agent, app: &App) -> Mirror {
    let repos = agent.in_force().config.agent.data_dir.join("repos");
    let folder = repos.join(format!("{}.git", app.name));
    Mirror::new(folder, app.repo.clone(), app.source.clone())
}

pub async fn fetch(
    line: &Line<'_>,
    goal: &Goal,
    git_ref: Option<&str>,
) -> Result<Done<Commit>, Stop> {
    let known = line.agent.hub.take_found(&line.app.name, &line.id);
    let commit = find(line, goal, git_ref, known).await?;
    let detail = match line.app.image() {
        Some(_) => commit.message.clone(),
        None => format!("{} {}", commit.id.short(), commit.message),
    };
    let (id, found) = (line.id.clone(), commit.clone());
    let app = line.app.name.clone();
    let read = match goal {
        Goal::Pushed(_) => {
            Some(git_ref.map_or_else(|| format!("refs/heads/{}", line.app.branch), str::to_owned))
        }
        _ => None,
    };
    let read = read.filter(|name| name.starts_with("refs/heads/"));
    Ok(Done::new(commit, detail).recording(move |db| {
        if let Some(git_ref) = read {
            pushes::found(db, &app, &git_ref, &found.id)?;
        }
        deployments::set_commit(db, &id, &found.id, &found.message, &found.author)?;
        match deployments::get(db, &id)? {
            Some(deployment) => deployments::set_found(db, &deployment),
            None => Ok(()),
        }
    }))
}

/// Fetches the commit that a deployment deploys, unless it is `known` and still there. An error if
/// there is nothing to deploy.
pub async fn find(
    line: &Line<'_>,
    goal: &Goal,
    git_ref: Option<&str>,
    known: Option<CommitId>,
) -> Result<Commit, Stop> {
    if let Some(image) = line.app.image() {
        return image::find(line, image, goal).await;
    }
    let pushed = |folder| git_ref.and_then(|name| name.strip_prefix(folder));
    let branch = match goal {
        Goal::Pushed(_) => pushed("refs/heads/").unwrap_or(&line.app.branch).to_owned(),
        _ => line.app.branch.clone(),
    };
    let tag = pushed("refs/tags/").map(str::to_owned);
    let live = standing(line).await?;
    let mirror = mirror(line);
    let paths = line.app.paths.clone();
    let (log, cancel, goal) = (line.log.clone(), line.cancel.clone(), goal.clone());
    let fetch = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + DEADLINE;
        let say = |text: &str| log.line(text);
        let get = |revision| mirror.fetch(&revision, &say, &cancel, deadline);
        let kept = known.and_then(|id| mirror.kept(&id));
        let wanted = |revision| kept.clone().map_or_else(|| get(revision), Ok);
        let unskipped = |commit: Commit, pushed: &CommitId| match skip(&mirror, pushed) {
            Err(why) => Err(Stop::skipped("skipped", why)),
            Ok(()) => Ok(commit),
        };
        match (goal, tag) {
            // A pushed tag means exactly that commit, whatever it changes and whatever its message says.
            (Goal::Pushed(_), Some(tag)) => {
                wanted(source::Revision::Tag(tag)).map(|commit| not_live(commit, live.as_ref()))
            }
            // Deliveries arrive late and out of order, and a force-push may have removed the pushed
            // commit: the branch's tip is deployed, whichever commit the push named.
            (Goal::Pushed(id), None) => {
                let tip = wanted(source::Revision::Branch(branch.clone()))?;
                let tip = unskipped(tip, &id)
                    .and_then(|tip| newest(tip, &id, &branch, live.as_ref(), &say));
                let changed = |live: &CommitId, tip: &CommitId| {
                    mirror.changed_paths(live, tip).or_else(|_| {
                        // Missing if the mirror was created anew.
                        get(source::Revision::Commit(live.clone()))?;
                        mirror.changed_paths(live, tip)
                    })
                };
                Ok(tip.and_then(|tip| changes(tip, paths.as_ref(), live.as_ref(), changed)))
            }
            (Goal::Named(text), _) => wanted(source::Revision::Named(text)).map(Ok),
            (Goal::Branch | Goal::Release(_) | Goal::Again, _) => {
                wanted(source::Revision::Branch(branch)).map(Ok)
            }
        }
    });
    let outcome = fetch
        .await
        .map_err(|e| Stop::failed("fetch", format!("the fetch failed: {e}")))?;
    outcome.map_err(stopped)?
}

/// The commit that a push stands for now: the tip of its branch. If another push has made the tip live
/// already, there is nothing left to do, and the error says so.
fn newest(
    tip: Commit,
    pushed: &CommitId,
    branch: &str,
    live: Option<&CommitId>,
    say: &impl Fn(&str),
) -> Result<Commit, Stop> {
    let (old, new) = (pushed.short(), tip.id.short());
    if live == Some(&tip.id) && tip.id != *pushed {
        let why = format!("`{new}`, which is live, is newer than the pushed `{old}`");
        return Err(Stop::superseded("already_live", why));
    }
    if tip.id != *pushed {
        say(&format!(
            "`{branch}` has moved on from `{old}` to `{new}`, which is deployed"
        ));
    }
    not_live(tip, live)
}

/// An error if the commit's message asks not to be deployed. Not every delivery contains the message.
fn skip(mirror: &Mirror, commit: &CommitId) -> Result<(), String> {
    filter::wants_message(&mirror.message(commit).unwrap_or_default())
}

fn not_live(commit: Commit, live: Option<&CommitId>) -> Result<Commit, Stop> {
    match live == Some(&commit.id) {
        true => {
            let why = format!("`{}` is live already", commit.id.short());
            Err(Stop::skipped("already_live", why))
        }
        false => Ok(commit),
    }
}

/// Accepts the tip if it changes any of the app's `paths`. It is compared with what is live, not with
/// the start of this push: an earlier push may have been superseded, have failed or been rolled back.
fn changes(
    tip: Commit,
    paths: Option<&PathFilter>,
    live: Option<&CommitId>,
    changed: impl Fn(&CommitId, &CommitId) -> Result<Changed, SourceError>,
) -> Result<Commit, Stop> {
    let (Some(paths), Some(live)) = (paths, live) else {
        return Ok(tip);
    };
    // A force-push may have removed the live commit, or there is too much to compare: then the changes
    // are unknown, and it is deployed.
    match changed(live, &tip.id) {
        Ok(Changed::Paths(changed)) if !paths.any(&changed) => {
            let (old, new) = (live.short(), tip.id.short());
            let why = format!("nothing under `paths` changed from the live `{old}` to `{new}`");
            Err(Stop::skipped("paths_unchanged", why))
        }
        _ => Ok(tip),
    }
}

fn stopped(error: SourceError) -> Stop {
    match error {
        SourceError::Cancelled => Stop::Cancelled,
        other => Stop::failed(other.code(), format!("{other}; {}", other.hint())),
    }
}
