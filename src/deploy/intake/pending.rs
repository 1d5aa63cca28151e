//! Pushes over HTTP. What git is about to accept is stored first, so that it is deployed even if the
//! agent dies before it has queued the deployment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::repository::{Push, Settles, decide_for};
use super::{Agent, Moved, Outcome, Result};
use crate::config::Repo;
use crate::deploy::checkpoint::Checkpoint;
use crate::ids::AppName;
use crate::source;
use crate::store::pending_pushes::{self, PendingPush};

/// How long git may outlive the agent that started it: it may still be checking up to 4 GiB.
const GIT_ENDS: Duration = Duration::from_secs(10 * 60);
/// How often to check what git has moved.
const LOOK: Duration = Duration::from_secs(1);

/// Stores the refs of a push. git gets the end of the push only after this.
pub async fn begin(agent: &Agent, push: Vec<PendingPush>) -> Result<()> {
    let insert = move |db: &rusqlite::Connection| pending_pushes::insert(db, &push);
    agent.store.write(insert).await
}

/// Deletes the refs that git did not accept.
pub async fn end(agent: &Agent, push: Vec<PendingPush>) -> Result<()> {
    let delete = move |db: &rusqlite::Connection| {
        for one in &push {
            pending_pushes::delete(db, &one.app, &one.git_ref, &one.commit)?;
        }
        Ok(())
    };
    agent.store.write(delete).await
}

/// Decides about the refs of one push that git has moved. Those that the repository's own hook has
/// handed over meanwhile are left out: they have been decided about.
pub async fn moved(agent: &Agent, taken: Vec<PendingPush>) -> Result<Vec<Outcome>> {
    Checkpoint::Taken.reach();
    let Some(first) = taken.first() else {
        return Ok(vec![]);
    };
    let app = agent.app(&first.app);
    let Some(Repo::Local(path)) = app.map(|app| app.repo.clone()) else {
        let outcomes = taken.iter().map(gone).collect();
        end(agent, taken).await?;
        return Ok(outcomes);
    };
    let push = Push {
        repository: path,
        refs: taken.iter().map(to_moved).collect(),
        no_cache: first.no_cache,
        pull: first.pull,
        skip: first.skip,
        by: first.requested_by.clone(),
    };
    let own = Settles::Own(first.app.clone());
    decide_for(agent, push, |_| true, own).await
}

fn to_moved(push: &PendingPush) -> Moved {
    Moved {
        git_ref: push.git_ref.clone(),
        old: push.old.clone(),
        new: Ok(Some(push.commit.clone())),
        points_to: None,
        message: None,
        author: None,
    }
}

fn gone(push: &PendingPush) -> Outcome {
    Outcome {
        git_ref: push.git_ref.clone(),
        app: Some(push.app.clone()),
        deployment: None,
        reason: Some("the app is no longer deployed from this repository".to_owned()),
        skipped: false,
    }
}

/// Identifies the refs of one push: when it began, and its app.
type Batches = BTreeMap<(i64, AppName), Batch>;

struct Batch {
    refs: Vec<PendingPush>,
    /// How many refs had moved at the last check.
    moved: usize,
}

/// Decides about the pushes that the previous agent left pending. git may still be running: a ref that
/// has not moved yet is checked again.
pub async fn take_up(agent: Arc<Agent>) {
    let until = tokio::time::Instant::now() + GIT_ENDS;
    let mut left = Batches::new();
    for (at, push) in agent
        .store
        .read(pending_pushes::all)
        .await
        .unwrap_or_default()
    {
        let key = (at, push.app.clone());
        let batch = left.entry(key).or_insert(Batch {
            refs: vec![],
            moved: 0,
        });
        batch.refs.push(push);
    }
    while !left.is_empty() {
        let late = tokio::time::Instant::now() > until;
        let mut waiting = Batches::new();
        for (key, mut batch) in left {
            if let Err(error) = look(&agent, &mut batch, late).await {
                tracing::error!(app = %key.1, %error, "failed to queue a push");
            }
            if !batch.refs.is_empty() {
                waiting.insert(key, batch);
            }
        }
        left = waiting;
        if !left.is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Decides about the refs that have moved, once all have or none has moved since the last check: git
/// moves the refs of a push one after the other, and may refuse some.
async fn look(agent: &Arc<Agent>, batch: &mut Batch, late: bool) -> Result<()> {
    let mut moved = Vec::new();
    for push in &batch.refs {
        if has_moved(agent, push).await {
            moved.push(push.clone());
        }
    }
    let settled = moved.len() == batch.refs.len() || moved.len() == batch.moved;
    batch.moved = moved.len();
    if settled && !moved.is_empty() {
        tracing::info!(app = %moved[0].app, "processing a push that the previous agent received");
        super::pending::moved(agent, moved.clone()).await?;
        batch.refs.retain(|push| !moved.contains(push));
        batch.moved = 0;
    }
    if late {
        end(agent, std::mem::take(&mut batch.refs)).await?;
    }
    Ok(())
}

/// Whether the ref points to where the push moves it. If a later push has moved it further, that push
/// has a row of its own.
async fn has_moved(agent: &Agent, push: &PendingPush) -> bool {
    let app = agent.app(&push.app);
    let Some(Repo::Local(path)) = app.map(|app| app.repo.clone()) else {
        // Decided about at once: nothing is deployed from this repository.
        return true;
    };
    let git_ref = push.git_ref.clone();
    let tip = tokio::task::spawn_blocking(move || source::tip(&path, &git_ref)).await;
    tip.ok().flatten().as_ref() == Some(&push.commit)
}
