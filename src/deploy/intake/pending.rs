//! Pushes over HTTP. What git is about to take is stored first: what it took is deployed, also when the
//! agent dies before it has queued it.

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

/// How long git may outlive the agent that started it: it reads and checks at most 4 GiB.
const GIT_ENDS: Duration = Duration::from_secs(10 * 60);
/// How often to look where git is.
const LOOK: Duration = Duration::from_secs(1);

/// Stores the refs of a push. Not before then may git have all of it.
pub async fn begin(agent: &Agent, push: Vec<PendingPush>) -> Result<()> {
    let insert = move |db: &rusqlite::Connection| pending_pushes::insert(db, &push);
    agent.store.write(insert).await
}

/// Forgets what git did not take.
pub async fn end(agent: &Agent, push: Vec<PendingPush>) -> Result<()> {
    let delete = move |db: &rusqlite::Connection| {
        for one in &push {
            pending_pushes::delete(db, &one.app, &one.git_ref, &one.commit)?;
        }
        Ok(())
    };
    agent.store.write(delete).await
}

/// Decides about the refs of one push that git has moved. What the repository's own hook has handed
/// over meanwhile is left out: it has been decided about.
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
        message: None,
        author: None,
    }
}

fn gone(push: &PendingPush) -> Outcome {
    Outcome {
        git_ref: push.git_ref.clone(),
        app: Some(push.app.clone()),
        deployment: None,
        reason: Some("the app is no longer deployed from there".to_owned()),
    }
}

/// The refs of one push; its app and the time at which it began.
type Batches = BTreeMap<(i64, AppName), Batch>;

struct Batch {
    refs: Vec<PendingPush>,
    /// How many had moved when it was looked at last.
    moved: usize,
}

/// Takes up what the last agent did not come to decide about. git may still be at it: a ref that has
/// not moved yet is looked at again.
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
                tracing::error!(app = %key.1, %error, "a push cannot be queued yet");
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

/// Decides about what has moved, once all has or nothing has moved since the last look: git moves the
/// refs of a push one after the other, and may refuse some.
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
        tracing::info!(app = %moved[0].app, "taking up a push that the last agent received");
        super::pending::moved(agent, moved.clone()).await?;
        batch.refs.retain(|push| !moved.contains(push));
        batch.moved = 0;
    }
    if late {
        end(agent, std::mem::take(&mut batch.refs)).await?;
    }
    Ok(())
}

/// Whether the ref is where the push moves it. Where a later push has moved it on, that has a row of
/// its own.
async fn has_moved(agent: &Agent, push: &PendingPush) -> bool {
    let app = agent.app(&push.app);
    let Some(Repo::Local(path)) = app.map(|app| app.repo.clone()) else {
        // Decided about at once: nothing is deployed from there.
        return true;
    };
    let git_ref = push.git_ref.clone();
    let tip = tokio::task::spawn_blocking(move || source::tip(&path, &git_ref)).await;
    tip.ok().flatten().as_ref() == Some(&push.commit)
}
