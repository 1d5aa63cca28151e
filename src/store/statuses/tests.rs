use rusqlite::Connection;

use super::outbox::PATIENCE;
use super::*;
use crate::state::{Event, Step};
use crate::store::Store;
use crate::store::deployments::{self, NewDeployment, Trigger, Want};

fn commit(digit: char) -> CommitId {
    digit.to_string().repeat(40).parse().unwrap()
}

fn queue(db: &Connection, commit: &CommitId) -> DeploymentId {
    // Ids of one millisecond sort by chance.
    std::thread::sleep(std::time::Duration::from_millis(2));
    let new = NewDeployment {
        app: "hello".parse().unwrap(),
        trigger: Trigger::Webhook,
        want: Want::Pushed(commit.clone()),
        git_ref: None,
        commit: Some(commit.clone()),
        message: None,
        author: None,
        no_cache: false,
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

/// What the forge is told of the commit, and by whom.
fn status(db: &Connection, commit: &CommitId) -> (DeploymentId, StatusPhase) {
    let sql = "SELECT * FROM reports WHERE kind = 'status' AND commit_id = ?1";
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
        // Nor does it keep what waits, once it reports no more.
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
        let first = of(db, &id).unwrap().remove(0);
        assert_eq!((first.phase, first.revision), (StatusPhase::Queued, 1));
        begin(db, &id, &[Step::Fetch, Step::Build, Step::Start]);
        let second = of(db, &id).unwrap().remove(0);
        assert_eq!((second.phase, second.revision), (StatusPhase::Running, 2));
        // It was interrupted and waits again: still under way.
        deployments::apply(db, &id, Event::Interrupt).unwrap();
        assert_eq!(status(db, &a), (id.clone(), StatusPhase::Running));
        // What was sent of an older revision does not count for a newer one.
        set_told(db, &first).unwrap();
        assert!(of(db, &id).unwrap().remove(0).is_waiting());
        set_told(db, &second).unwrap();
        assert!(!of(db, &id).unwrap().remove(0).is_waiting());
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
        // Cancelled, it takes nothing back from the one that is live.
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

#[tokio::test]
async fn an_older_deployment_is_told_first_even_when_it_has_to_wait() {
    on(|db| {
        let first = queue(db, &commit('a'));
        go_live(db, &first);
        let second = queue(db, &commit('b'));
        let head = |kind| {
            let all = waiting(db).unwrap().into_iter();
            all.filter(|it| it.kind == kind).collect::<Vec<_>>()
        };
        let oldest = head(StatusKind::Deployment);
        assert_eq!(oldest.len(), 1);
        assert_eq!(oldest[0].deployment, first);
        set_later(db, &oldest[0], now() + 60_000, "down").unwrap();
        assert_eq!(head(StatusKind::Deployment)[0].deployment, first);
        // A status stands at its commit: one that has to wait holds up no other.
        let status = head(StatusKind::Commit).remove(0);
        set_later(db, &status, now() + 60_000, "down").unwrap();
        assert_ne!(head(StatusKind::Commit)[0].commit, status.commit);
        set_refused(db, &oldest[0], "no").unwrap();
        assert_eq!(head(StatusKind::Deployment)[0].deployment, second);
    })
    .await;
}

#[tokio::test]
async fn one_that_fails_on_and_on_holds_up_no_later_one() {
    on(|db| {
        let first = queue(db, &commit('a'));
        go_live(db, &first);
        let second = queue(db, &commit('b'));
        let heads = || {
            let all = waiting(db).unwrap().into_iter();
            let all = all.filter(|it| it.kind == StatusKind::Deployment);
            all.collect::<Vec<_>>()
        };
        for attempt in 1..=PATIENCE {
            let head = heads().remove(0);
            assert_eq!(head.deployment, first, "{attempt}");
            set_later(db, &head, now() + 60_000, "no").unwrap();
        }
        // The later one is due; the other is known, for its time.
        let ids: Vec<_> = heads().into_iter().map(|it| it.deployment).collect();
        assert_eq!(ids, [second.clone(), first.clone()]);
        set_told(db, &heads()[0]).unwrap();
        assert_eq!(heads()[0].deployment, first);
    })
    .await;
}

#[tokio::test]
async fn the_wait_for_a_forge_that_is_down_outlasts_a_change() {
    on(|db| {
        let id = queue(db, &commit('a'));
        let report = of(db, &id).unwrap().remove(0);
        let until = now() + 60_000;
        set_later(db, &report, until, "down").unwrap();
        begin(db, &id, &[Step::Fetch]);
        let report = of(db, &id).unwrap().remove(0);
        assert_eq!((report.due_at, report.attempts), (until, 1));
        set_told(db, &report).unwrap();
        let report = of(db, &id).unwrap().remove(0);
        assert!(report.due_at <= now() && report.attempts == 0);
    })
    .await;
}
