use rusqlite::Connection;

use super::*;
use crate::state::{Event, Step};
use crate::store::deployments::{self, Goal, NewDeployment, Trigger};
use crate::store::{Store, now};

fn commit(digit: char) -> CommitId {
    digit.to_string().repeat(40).parse().unwrap()
}

fn queue(db: &Connection, commit: &CommitId) -> DeploymentId {
    // Ids of the same millisecond sort in no particular order.
    std::thread::sleep(std::time::Duration::from_millis(2));
    let new = NewDeployment {
        app: "hello".parse().unwrap(),
        trigger: Trigger::Webhook,
        goal: Goal::Pushed(commit.clone()),
        git_ref: None,
        commit: Some(commit.clone()),
        message: Some("a message".into()),
        author: None,
        no_cache: false,
        pull: false,
        requested_by: crate::principal::Requester::Agent,
    };
    deployments::enqueue(db, &new).unwrap().id
}

fn begin(db: &Connection, id: &DeploymentId, steps: &[Step]) {
    for step in steps {
        deployments::apply(db, id, Event::Begin(*step)).unwrap();
    }
}

fn go_live(db: &Connection, id: &DeploymentId) {
    begin(
        db,
        id,
        &[Step::Start, Step::Probe, Step::Switch, Step::Drain],
    );
    deployments::end(db, id, Event::Finish, None).unwrap();
}

/// The phase that is reported for a commit, and the deployment that it comes from.
fn status(db: &Connection, commit: &CommitId) -> (DeploymentId, StatusPhase) {
    let sql = "SELECT * FROM statuses WHERE kind = 'status' AND commit_id = ?1";
    let report = db.query_row(sql, [commit.as_str()], from_row).unwrap();
    (report.deployment, report.phase)
}

fn own(db: &Connection, id: &DeploymentId) -> Vec<(CommitId, StatusPhase)> {
    let all = of(db, id).unwrap().into_iter();
    let own = all.filter(|report| report.kind == StatusKind::Deployment);
    own.map(|report| (report.commit, report.phase)).collect()
}

/// Runs a test in the writer's own transaction.
async fn on(test: impl FnOnce(&Connection) + Send + 'static) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let outcome = store.write(move |db| {
        set_reporting(db, &[("hello".parse().unwrap(), true)])?;
        test(db);
        Ok(())
    });
    outcome.await.unwrap();
}

#[tokio::test]
async fn who_reports_nothing_has_no_rows() {
    on(|db| {
        set_reporting(db, &[("other".parse().unwrap(), true)]).unwrap();
        let id = queue(db, &commit('a'));
        assert!(of(db, &id).unwrap().is_empty());
        set_reporting(db, &[("hello".parse().unwrap(), false)]).unwrap();
        begin(db, &id, &[Step::Fetch]);
        let kinds: Vec<_> = of(db, &id).unwrap().iter().map(|it| it.kind).collect();
        assert_eq!(kinds, [StatusKind::Commit]);
        // An app that no longer reports keeps no waiting messages either.
        set_reporting(db, &[]).unwrap();
        assert!(waiting(db).unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_row_changes_with_the_phase_and_not_with_each_state() {
    on(|db| {
        let a = commit('a');
        let id = queue(db, &a);
        let queued = of(db, &id).unwrap().remove(0);
        assert_eq!(queued.phase, StatusPhase::Queued);
        let message = |db| waiting(db).unwrap().remove(0);
        let first = message(db);
        begin(db, &id, &[Step::Fetch]);
        let second = message(db);
        assert_ne!(first, second);
        begin(db, &id, &[Step::Build, Step::Start]);
        assert_eq!(message(db), second);
        // Interrupted and waiting again, it is still reported as running.
        deployments::apply(db, &id, Event::Interrupt).unwrap();
        assert_eq!(status(db, &a), (id.clone(), StatusPhase::Running));
        // Reporting an older phase does not settle a newer one.
        set_told(db, &first, &queued).unwrap();
        let running = of(db, &id).unwrap().remove(0);
        assert!(!running.told);
        set_told(db, &message(db), &running).unwrap();
        assert!(of(db, &id).unwrap().remove(0).told);
    })
    .await;
}

#[tokio::test]
async fn the_newest_that_came_to_something_speaks_for_the_commit() {
    on(|db| {
        let a = commit('a');
        let first = queue(db, &a);
        go_live(db, &first);
        let second = queue(db, &a);
        assert_eq!(status(db, &a), (second.clone(), StatusPhase::Queued));
        // Once it is cancelled, the live one speaks for the commit again.
        deployments::end(db, &second, Event::Cancel, None).unwrap();
        assert_eq!(status(db, &a), (first.clone(), StatusPhase::Live));
        let third = queue(db, &a);
        begin(db, &third, &[Step::Fetch]);
        deployments::end(db, &third, Event::Fail, None).unwrap();
        assert_eq!(status(db, &a), (third, StatusPhase::Failed));
        assert_eq!(own(db, &first), [(a, StatusPhase::Live)]);
    })
    .await;
}

#[tokio::test]
async fn a_push_that_becomes_a_newer_commit_leaves_the_older_one() {
    on(|db| {
        let (a, b) = (commit('a'), commit('b'));
        let id = queue(db, &a);
        begin(db, &id, &[Step::Fetch]);
        deployments::set_commit(db, &id, &b, "", "").unwrap();
        assert_eq!(status(db, &a), (id.clone(), StatusPhase::Superseded));
        assert_eq!(status(db, &b), (id.clone(), StatusPhase::Running));
        let expected = [(a, StatusPhase::Superseded), (b, StatusPhase::Running)];
        assert_eq!(own(db, &id), expected);
    })
    .await;
}

#[tokio::test]
async fn what_was_live_is_replaced_and_its_commit_stays_a_success() {
    on(|db| {
        let (a, b) = (commit('a'), commit('b'));
        let (first, second) = (queue(db, &a), queue(db, &b));
        // The second took the first's place in the queue.
        assert_eq!(own(db, &first), [(a.clone(), StatusPhase::Superseded)]);
        go_live(db, &second);
        let back = queue(db, &a);
        go_live(db, &back);
        assert_eq!(own(db, &second), [(b.clone(), StatusPhase::Replaced)]);
        assert_eq!(own(db, &back), [(a.clone(), StatusPhase::Live)]);
        assert_eq!(status(db, &b), (second, StatusPhase::Live));
        assert_eq!(status(db, &a), (back, StatusPhase::Live));
    })
    .await;
}

/// The messages of a kind that may be sent next, each with its current status.
fn heads(db: &Connection, kind: StatusKind) -> Vec<(Message, ForgeStatus)> {
    let all = waiting(db).unwrap().into_iter();
    let all = all.map(|message| {
        let status = of_message(db, &message).unwrap().unwrap();
        (message, status)
    });
    all.filter(|(_, status)| status.kind == kind).collect()
}

#[tokio::test]
async fn an_older_deployment_is_told_first_even_when_it_has_to_wait() {
    on(|db| {
        let first = queue(db, &commit('a'));
        go_live(db, &first);
        let second = queue(db, &commit('b'));
        let oldest = heads(db, StatusKind::Deployment);
        assert_eq!(oldest.len(), 1);
        let (message, status) = &oldest[0];
        assert_eq!(status.deployment, first);
        set_later(db, message, status, now() + 60_000, "down").unwrap();
        let (message, status) = heads(db, StatusKind::Deployment).remove(0);
        assert_eq!(status.deployment, first);
        assert_eq!(status.error.as_deref(), Some("down"));
        set_refused(db, &message, &status, "no").unwrap();
        let next = heads(db, StatusKind::Deployment).remove(0);
        assert_eq!(next.1.deployment, second);
        // The refusal is shown, and nothing about it waits.
        let refused = of(db, &first).unwrap().pop().unwrap();
        assert!(refused.told && refused.error.as_deref() == Some("no"));
    })
    .await;
}

#[tokio::test]
async fn one_that_changes_after_a_later_one_is_still_told_first() {
    on(|db| {
        let first = queue(db, &commit('a'));
        let (message, status) = heads(db, StatusKind::Deployment).remove(0);
        set_told(db, &message, &status).unwrap();
        let second = queue(db, &commit('b'));
        // The first was superseded, so its status waits again, ahead of the second's.
        begin(db, &second, &[Step::Fetch]);
        let head = heads(db, StatusKind::Deployment).remove(0);
        assert_eq!(head.1.deployment, first);
        for _ in 0..PATIENCE {
            let (message, status) = heads(db, StatusKind::Deployment).remove(0);
            assert_eq!(status.deployment, first);
            set_later(db, &message, &status, now() + 60_000, "no").unwrap();
        }
        // It failed too often to hold up the second.
        let ids: Vec<_> = heads(db, StatusKind::Deployment)
            .into_iter()
            .map(|(_, status)| status.deployment)
            .collect();
        assert_eq!(ids, [second, first]);
    })
    .await;
}
