//! A new deployment takes its place in its app's queue.

use rusqlite::Connection;

use super::query::waiting;
use super::{Deployment, Failure, Goal, NewDeployment, Trigger, end, get};
use crate::ids::{CommitId, DeploymentId};
use crate::state::Event;
use crate::store::{Result, StoreError, actions, app_names, apps, now, statuses, to_json};

/// The most deployments of an app that may wait without their commit having been found.
const UNFOUND: usize = 20;

/// Queues a deployment. The newest waiting one wins, but only once its commit has been found
/// ([`set_found`]): whoever comes with nothing to deploy must not cost others their turn. What a
/// rollback deploys is known; and a request for the same as a waiting one takes its place at once.
///
/// An automatic rollback supersedes nothing and is not superseded: it runs first, since the live
/// release is bad, and the waiting deployment may take long and fail. Nor does [`Goal::Again`]: neither
/// does what the other is to do.
///
/// Refused if the app is no longer in deploy.toml, unless it is an automatic rollback.
pub fn enqueue(db: &Connection, new: &NewDeployment) -> Result<Deployment> {
    let app = &new.app;
    // The deploy.toml that was in force when the request arrived may be out of date by now.
    if new.trigger != Trigger::AutoRollback && app_names::is_gone(db, app)? {
        let why = format!("`{app}` is no longer in deploy.toml");
        return Err(StoreError::Refused(why));
    }
    let older = match new.trigger {
        Trigger::AutoRollback => vec![],
        _ if new.goal == Goal::Again => vec![],
        _ => waiting(db, &new.app)?,
    };
    let queued = insert(db, new)?;
    let unfound = older.iter().filter(|older| !older.found).count();
    let beyond = (unfound + 1).saturating_sub(UNFOUND);
    let oldest = older.iter().filter(|older| !older.found).take(beyond);
    let oldest: Vec<_> = oldest.map(|older| older.id.clone()).collect();
    for older in &older {
        if queued.found || stands_and_falls_with(older, new) || oldest.contains(&older.id) {
            supersede(db, older, &queued.id)?;
        }
    }
    Ok(queued)
}

/// Records a push that is skipped before it is queued. It supersedes nothing.
pub fn skip(db: &Connection, new: &NewDeployment, why: &str) -> Result<Deployment> {
    let id = insert(db, new)?.id;
    end(db, &id, Event::Skip, Some(&Failure::new("skipped", why)))?;
    get(db, &id)?.ok_or_else(|| StoreError::Refused("the deployment was not stored".into()))
}

/// Records that what a waiting or running deployment deploys exists. From now on it counts: the ones
/// that were waiting before it are superseded.
pub fn set_found(db: &Connection, deployment: &Deployment) -> Result<()> {
    db.execute(
        "UPDATE deployments SET found = 1 WHERE id = ?1",
        [deployment.id.as_str()],
    )?;
    for older in waiting(db, &deployment.app)? {
        if older.id < deployment.id {
            supersede(db, &older, &deployment.id)?;
        }
    }
    Ok(())
}

fn supersede(db: &Connection, older: &Deployment, newer: &DeploymentId) -> Result<()> {
    let why = format!("the newer deployment `{newer}` took its place in the queue");
    let error = Failure::new("superseded", why);
    end(db, &older.id, Event::Supersede, Some(&error))?;
    tracing::info!(app = %older.app, deployment = %older.id, "superseded: {}", error.message);
    Ok(())
}

/// Whether a waiting deployment and a newer request deploy the same, or both nothing.
fn stands_and_falls_with(older: &Deployment, new: &NewDeployment) -> bool {
    match (&older.goal, &new.goal) {
        // Both deploy the branch's tip. Without its message, the newer one may still be skipped.
        (Goal::Pushed(_), Goal::Pushed(_)) => older.git_ref == new.git_ref && new.message.is_some(),
        (older, new) => older == new,
    }
}

fn insert(db: &Connection, new: &NewDeployment) -> Result<Deployment> {
    let id = DeploymentId::new();
    let found = matches!(new.goal, Goal::Release(_));
    let mut insert = db.prepare_cached(
        "INSERT INTO deployments
            (id, app, trigger, want, ref, commit_id, message, author, state, created_at, no_cache,
             requested_by, found, pull)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'queued', ?9, ?10, ?11, ?12, ?13)",
    )?;
    insert.execute((
        id.as_str(),
        new.app.as_str(),
        to_json(&new.trigger)?,
        to_json(&new.goal)?,
        &new.git_ref,
        new.commit.as_ref().map(CommitId::as_str),
        &new.message,
        &new.author,
        now(),
        new.no_cache,
        to_json(&new.requested_by)?,
        found,
        new.pull,
    ))?;
    record(db, &id, new)?;
    statuses::changed(db, &id)?;
    get(db, &id)?.ok_or_else(|| StoreError::Refused("the deployment was not stored".into()))
}

/// Records in the audit log who requests it, and what is live before.
fn record(db: &Connection, id: &DeploymentId, new: &NewDeployment) -> Result<()> {
    let kind = match (new.trigger, &new.goal) {
        (Trigger::Rollback | Trigger::AutoRollback, _) => actions::Kind::Rollback,
        (_, Goal::Again) => actions::Kind::Restart,
        _ => actions::Kind::Deploy,
    };
    let mut detail = serde_json::json!({
        "deployment": id,
        "trigger": new.trigger,
        "live": apps::serving(db, &new.app)?.live,
    });
    match &new.goal {
        Goal::Release(to) => detail["to"] = serde_json::json!(to),
        Goal::Named(name) => detail["to"] = serde_json::json!(name),
        Goal::Pushed(commit) => detail["to"] = serde_json::json!(commit),
        Goal::Branch | Goal::Again => {}
    }
    actions::insert(db, kind, Some(&new.app), &detail, &new.requested_by)
}

#[cfg(test)]
mod tests {
    use super::super::apply;
    use super::super::query::{newest_unfound, next_in_queue, next_waiting};
    use super::*;
    use crate::state::{self, State};
    use crate::store::{Store, fixture};

    fn asked(trigger: Trigger) -> NewDeployment {
        fixture::asked(trigger, Goal::Branch)
    }

    #[tokio::test]
    async fn an_automatic_rollback_and_a_push_that_waits_do_not_cost_each_other_their_turn() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let queued = store.write(|db| {
            let before = enqueue(db, &asked(Trigger::Webhook))?.id;
            let back = enqueue(db, &asked(Trigger::AutoRollback))?.id;
            let first = next_in_queue(db, &"hello".parse().unwrap())?;
            assert_eq!(first.unwrap().id, back);
            assert_eq!(get(db, &before)?.unwrap().state, State::Queued);

            let after = enqueue(db, &asked(Trigger::Webhook))?.id;
            assert_eq!(get(db, &before)?.unwrap().state, State::Superseded);
            let first = next_in_queue(db, &"hello".parse().unwrap())?;
            assert_eq!(first.unwrap().id, back);
            apply(db, &back, Event::Begin(state::Step::Start))?;
            let second = next_in_queue(db, &"hello".parse().unwrap())?;
            assert_eq!(second.unwrap().id, after);
            Ok(())
        });
        queued.await.unwrap();
    }

    #[tokio::test]
    async fn the_live_release_again_comes_before_what_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let queued = store.write(|db| {
            let app = "hello".parse().unwrap();
            let again = NewDeployment {
                goal: Goal::Again,
                ..asked(Trigger::Api)
            };
            let mut order = vec![enqueue(db, &again)?.id];
            let push = enqueue(db, &asked(Trigger::Webhook))?.id;
            order.push(enqueue(db, &again)?.id);
            order.push(push);
            for id in order {
                assert_eq!(next_in_queue(db, &app)?.unwrap().id, id);
                end(db, &id, Event::Fail, None)?;
            }
            Ok(())
        });
        queued.await.unwrap();
    }

    #[tokio::test]
    async fn who_comes_with_nothing_found_costs_nobody_their_turn() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let queued = store.write(|db| {
            let app = "hello".parse().unwrap();
            let named = |name: &str| NewDeployment {
                goal: Goal::Named(name.into()),
                ..asked(Trigger::Api)
            };
            let state = |id: &DeploymentId| Ok::<_, StoreError>(get(db, id)?.unwrap().state);
            let good = enqueue(db, &asked(Trigger::Api))?;
            let typo = enqueue(db, &named("mian"))?;
            assert_eq!(state(&good.id)?, State::Queued);
            assert!(next_waiting(db, &app)?.is_none(), "nothing is found yet");
            assert_eq!(newest_unfound(db, &app, None)?.unwrap().id, typo.id);
            let other = newest_unfound(db, &app, Some(&typo.id))?;
            assert_eq!(other.unwrap().id, good.id);
            end(db, &typo.id, Event::Fail, None)?;
            set_found(db, &good)?;
            assert_eq!(next_waiting(db, &app)?.unwrap().id, good.id);

            // Found, the newer one wins.
            let newer = enqueue(db, &named("main"))?;
            assert_eq!(next_waiting(db, &app)?.unwrap().id, good.id);
            set_found(db, &newer)?;
            assert_eq!(state(&good.id)?, State::Superseded);
            assert_eq!(next_waiting(db, &app)?.unwrap().id, newer.id);

            // A flood of names that do not exist is bounded, and what is found outlives it.
            for number in 0..2 * UNFOUND {
                enqueue(db, &named(&number.to_string()))?;
            }
            assert_eq!(waiting(db, &app)?.len(), UNFOUND + 1);
            assert_eq!(state(&newer.id)?, State::Queued);
            Ok(())
        });
        queued.await.unwrap();
    }
}
