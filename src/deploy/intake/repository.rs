//! The git doors: a push to a bare repository on this machine, handed over by its post-receive hook or
//! received over HTTP.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use super::decide::{Led, decide};
use super::queue::{self, Placed, place, placed, skip};
use super::record::{self, record};
use super::{Agent, Moved, Outcome, Result};
use crate::config::{App, Repo};
use crate::ids::AppName;
use crate::principal::{Principal, Requester};
use crate::source;
use crate::store::deployments::NewDeployment;
use crate::store::{holds, pending_pushes};

/// A push as parsed by its door.
pub struct Push {
    pub repository: PathBuf,
    pub refs: Vec<Moved>,
    /// `-o cutover.no-cache`: build without the cache.
    pub no_cache: bool,
    /// `-o cutover.pull`: ask the registries for the base images anew.
    pub pull: bool,
    /// `-o cutover.skip` or `-o ci.skip`: deploy nothing.
    pub skip: bool,
    pub by: Requester,
}

/// Which pending pushes are settled by a push.
#[derive(Clone)]
pub(super) enum Settles {
    /// Those of the apps that it is for: the HTTP door then finds them settled.
    Any,
    /// Its own, stored for this app. A push that is settled already is not deployed again.
    Own(AppName),
}

/// Decides about a push that the hook handed over, for all apps of the repository that its sender
/// may see.
pub async fn pushed(agent: &Agent, push: Push, sender: &Principal) -> Result<Vec<Outcome>> {
    let sees = |app: &App| sender.sees(&app.name);
    decide_for(agent, push, sees, Settles::Any).await
}

/// Queues what the repository's apps deploy of a push and records the rest, in one transaction.
pub(super) async fn decide_for(
    agent: &Agent,
    mut push: Push,
    sees: impl Fn(&App) -> bool,
    settles: Settles,
) -> Result<Vec<Outcome>> {
    let in_force = agent.in_force();
    let apps = in_force.config.apps.values();
    let apps: Vec<_> = apps.filter(|app| sees(app)).cloned().collect();
    let looked = tokio::task::spawn_blocking(move || {
        let apps = apps_of(apps, &push.repository);
        // Only a repository that deploy.toml names is opened.
        for moved in push.refs.iter_mut().filter(|_| !apps.is_empty()) {
            let Some(id) = moved.commit().cloned() else {
                continue;
            };
            moved.message = source::message(&push.repository, &id);
            moved.points_to = source::peeled(&push.repository, &id);
        }
        (apps, push)
    });
    let (apps, push) = looked
        .await
        .map_err(|_| crate::store::StoreError::Stopped)?;
    if apps.is_empty() {
        let outcomes = no_app(&push);
        record::log(&outcomes);
        return Ok(outcomes);
    }
    let stored = agent
        .store
        .write(move |db| store(db, &apps, push, &settles))
        .await?;
    stored.0.iter().for_each(|new| placed(agent, new));
    record::log(&stored.1);
    Ok(stored.1)
}

fn store(
    db: &Connection,
    apps: &[Arc<App>],
    mut push: Push,
    settles: &Settles,
) -> Result<(Vec<Placed>, Vec<Outcome>)> {
    let mut refs = Vec::new();
    for moved in std::mem::take(&mut push.refs) {
        if settle(db, apps, &moved, settles)? {
            refs.push(moved);
        }
    }
    let (mut all_placed, mut all) = (Vec::new(), Vec::new());
    for app in apps {
        let pinned = holds::why_pinned(db, &app.name)?;
        let decision = decide(app, &refs, push.skip).unless_pinned(pinned);
        let to_place = |at: usize| NewDeployment {
            no_cache: push.no_cache,
            pull: push.pull,
            ..queue::pushed(&app.name, &refs[at], push.by.clone())
        };
        let first = decision.first.map(|at| place(db, &to_place(at), true));
        let first = first.transpose()?;
        let new = decision.chosen.map(|at| match decision.skip(at) {
            Some(why) => skip(db, &to_place(at), why),
            None => place(db, &to_place(at), true),
        });
        let new = new.transpose()?;
        let led = new.as_ref().map(Led::from).unwrap_or_default();
        let led_first = first.as_ref().map(Led::from).unwrap_or_default();
        let outcomes = decision.outcomes(&app.name, &refs, led, led_first);
        record(db, &refs, &outcomes, None, &push.by)?;
        all_placed.extend(first.into_iter().chain(new));
        all.extend(outcomes);
    }
    Ok((all_placed, all))
}

/// Deletes what was pending for a ref; false if it has been decided about before.
fn settle(db: &Connection, apps: &[Arc<App>], moved: &Moved, settles: &Settles) -> Result<bool> {
    let Some(commit) = moved.commit() else {
        return Ok(true);
    };
    let delete = |app: &AppName| pending_pushes::delete(db, app, &moved.git_ref, commit);
    match settles {
        Settles::Own(app) => delete(app),
        Settles::Any => {
            for app in apps {
                delete(&app.name)?;
            }
            Ok(true)
        }
    }
}

fn no_app(push: &Push) -> Vec<Outcome> {
    let path = push.repository.display();
    let reason = format!("no app in deploy.toml has `repo = \"{path}\"`");
    let outcome = |moved: &Moved| Outcome {
        git_ref: moved.git_ref.clone(),
        app: None,
        deployment: None,
        reason: Some(reason.clone()),
        skipped: false,
    };
    push.refs.iter().map(outcome).collect()
}

/// The apps that are deployed from this repository, however they spell its path.
fn apps_of(apps: Vec<Arc<App>>, repository: &Path) -> Vec<Arc<App>> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let wanted = real(repository);
    let same = |app: &Arc<App>| matches!(&app.repo, Repo::Local(path) if real(path) == wanted);
    apps.into_iter().filter(same).collect()
}
