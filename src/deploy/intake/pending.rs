//! Pushes over http, which git takes into a repository on this machine: one that is taken is
//! deployed, also when the agent dies before it has queued it.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{App, Repo};
use crate::deploy::checkpoint::Checkpoint;
use crate::deploy::{Agent, Result, filter, intake};
use crate::source;
use crate::store::deployments::{self, Deployment, NewDeployment};
use crate::store::pending_pushes::{self, PendingPush};
use crate::webhook::Ref;

/// How long git may outlive the agent that started it: it reads and checks at most 4 GiB.
const GIT_ENDS: Duration = Duration::from_secs(10 * 60);

/// Stores that git is about to take this. Not before then may git have all of it.
pub async fn begin(agent: &Agent, pushes: Vec<PendingPush>) -> Result<()> {
    let write = agent.store.write(move |db| {
        pushes
            .iter()
            .try_for_each(|push| pending_pushes::insert(db, push))
    });
    write.await
}

/// Forgets what git did not take, or what was queued otherwise.
pub async fn end(agent: &Agent, pushes: Vec<PendingPush>) -> Result<()> {
    let write = agent.store.write(move |db| {
        pushes
            .iter()
            .try_for_each(|push| pending_pushes::delete(db, push))
    });
    write.await
}

/// Queues a deployment of every app that is deployed from this ref of this repository. The inner
/// error says why the app that was pushed to is not deployed.
pub async fn queue(
    agent: &Arc<Agent>,
    push: PendingPush,
) -> Result<std::result::Result<Deployment, String>> {
    Checkpoint::Taken.reach();
    let in_force = agent.in_force();
    let config = &in_force.config;
    let Some(one) = config.apps.get(&push.app) else {
        end(agent, vec![push]).await?;
        return Ok(Err("the app is gone".into()));
    };
    if let Err(why) = skipped(one, &push).await {
        end(agent, vec![push]).await?;
        return Ok(Err(why));
    }
    let same = |app: &&Arc<App>| app.repo == one.repo && wants(app, &push.git_ref).is_ok();
    let new = |app: &Arc<App>| NewDeployment {
        no_cache: push.no_cache,
        ..intake::pushed(&app.name, &push.git_ref, push.commit.clone())
    };
    let all = config.apps.values().filter(same).map(new).collect();
    let queued = intake::pending(agent, all, push.clone()).await?;
    let mut own = queued.into_iter().filter(|queued| queued.app == push.app);
    let own = own.next();
    Ok(own.ok_or_else(|| format!("`{}` is not deployed from there", push.app)))
}

/// Whether a push to this ref is deployed; an error is the reason why not.
pub fn wants(app: &App, git_ref: &str) -> std::result::Result<(), String> {
    match Ref::parse(git_ref).map_err(|error| error.to_string())? {
        Some(git_ref) => filter::wants_ref(app, &git_ref),
        None => Err("it is neither a branch nor a tag".into()),
    }
}

/// An error where the head commit asks for not being deployed.
async fn skipped(app: &App, push: &PendingPush) -> std::result::Result<(), String> {
    let Repo::Local(path) = app.repo.clone() else {
        return Ok(());
    };
    let commit = push.commit.clone();
    let read = tokio::task::spawn_blocking(move || source::message(&path, &commit));
    let message = read.await.ok().flatten().unwrap_or_default();
    filter::wants_message(&message)
}

/// Takes up what the last agent did not come to queue. git may be at it still: a ref that has not
/// moved yet is looked at again.
pub async fn take_up(agent: Arc<Agent>) {
    let until = tokio::time::Instant::now() + GIT_ENDS;
    let left = agent
        .store
        .read(pending_pushes::all)
        .await
        .unwrap_or_default();
    let mut left: Vec<_> = left.into_iter().collect();
    while !left.is_empty() {
        let late = tokio::time::Instant::now() > until;
        let mut waiting = Vec::new();
        for (push, at) in left {
            match one(&agent, push.clone(), at, late).await {
                Ok(true) => {}
                Ok(false) => waiting.push((push, at)),
                Err(error) => {
                    tracing::error!(app = %push.app, %error, "a push cannot be queued yet");
                    waiting.push((push, at));
                }
            }
        }
        left = waiting;
        if !left.is_empty() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// True once nothing is left to do for it.
async fn one(agent: &Arc<Agent>, push: PendingPush, at: i64, late: bool) -> Result<bool> {
    let app = agent.app(&push.app);
    let path = match app.map(|app| app.repo.clone()) {
        Some(Repo::Local(path)) => path,
        _ => return end(agent, vec![push]).await.map(|()| true),
    };
    let git_ref = push.git_ref.clone();
    let tip = tokio::task::spawn_blocking(move || source::tip(&path, &git_ref)).await;
    if tip.ok().flatten().as_ref() != Some(&push.commit) {
        // Never taken, or a later push has moved the ref on, which has a row of its own.
        return match late {
            true => end(agent, vec![push]).await.map(|()| true),
            false => Ok(false),
        };
    }
    let (name, commit) = (push.app.clone(), push.commit.clone());
    let known = agent
        .store
        .read(move |db| deployments::since(db, &name, &commit, at));
    if known.await? {
        return end(agent, vec![push]).await.map(|()| true);
    }
    tracing::info!(app = %push.app, commit = %push.commit, "queueing a push that the last agent took");
    queue(agent, push).await.map(|_| true)
}
