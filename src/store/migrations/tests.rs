//! This version reads databases as each earlier version wrote them.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::Protocol;
use crate::ids::{AppName, DeploymentId, ReleaseId, ServiceName};
use crate::principal::Requester;
use crate::state::State;
use crate::store::deliveries::{self, NewDelivery};
use crate::store::deployments::{self, Goal, Trigger};
use crate::store::pushes::{self, Seen};
use crate::store::releases::Release;
use crate::store::statuses::{self, StatusKind, StatusPhase};
use crate::store::{Store, apps, instances, pending_pushes, releases, steps};

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// The rows to fill a database with after `count` migrations. Each entry names the range of migration
/// counts in which it is valid, and has the form of that time: never change an entry, add one.
fn rows(count: usize) -> impl Iterator<Item = &'static str> {
    const ROWS: &[(std::ops::RangeInclusive<usize>, &str)] = &[
        (
            1..=usize::MAX,
            "
            INSERT INTO meta VALUES ('agent_id', 'a0000000000001'), ('generation', '7');
            INSERT INTO apps (name, live_release, route_generation)
                VALUES ('hello', 'r0000000000002', 7);
            INSERT INTO deliveries VALUES ('w0000000000001', 'hello', 'github', 'i1', 'push', 'hash',
                1000, 'd0000000000001', NULL);
            INSERT INTO deployments (id, app, trigger, want, ref, commit_id, message, author, state,
                release, attempts, created_at, ended_at, receipt, error)
            VALUES
                ('d0000000000001', 'hello', '\"webhook\"',
                 '{\"pushed\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}', 'refs/heads/main',
                 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'First', 'Ada', 'live',
                 'r0000000000001', 1, 1000, 2000,
                 '{\"requests\":9,\"failed\":1,\"retried\":2,\"drained\":3,\"websockets_closed\":4,\"drain_ms\":5}',
                 NULL),
                ('d0000000000002', 'hello', '\"auto-rollback\"', '{\"release\":\"r0000000000001\"}',
                 NULL, NULL, NULL, NULL, 'failed', NULL, 0, 3000, 4000, NULL,
                 '{\"code\":\"unhealthy\",\"message\":\"It did not.\",\"step\":\"probe\",\"log_tail\":[\"x\"]}'),
                ('d0000000000003', 'hello', '\"cli\"', '\"branch\"', NULL, NULL, NULL, NULL, 'queued',
                 NULL, 0, 5000, NULL, NULL, NULL);
            INSERT INTO steps VALUES ('d0000000000001', 'fetch', 0, 'done', 1000, 1100, 'the tip');
            ",
        ),
        (
            1..=7,
            "
            INSERT INTO releases VALUES
                ('r0000000000001', 'hello', 'd0000000000001',
                 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'First', 'Ada',
                 'cutover/hello:aaaaaaaaaaaa', 'sha256:1',
                 '{\"port\":8080,\"run\":{\"env\":{},\"replicas\":1,\"memory\":null,\"cpus\":null,
                   \"stop_grace\":{\"secs\":10,\"nanos\":0}},\"health\":{\"path\":\"/\",
                   \"interval\":{\"secs\":0,\"nanos\":500000000},\"timeout\":{\"secs\":5,\"nanos\":0},
                   \"successes\":2,\"deadline\":{\"secs\":60,\"nanos\":0}}}',
                 1500, 1600, 1700),
                ('r0000000000002', 'hello', 'd0000000000001',
                 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 'Second', 'Ada',
                 'cutover/hello:bbbbbbbbbbbb', 'sha256:2',
                 '{\"port\":50051,\"protocol\":\"h2c\",\"run\":{\"env\":{\"A\":\"1\"},\"replicas\":2,
                   \"memory\":536870912,\"cpus\":0.5,\"stop_grace\":{\"secs\":1,\"nanos\":500000000}},
                   \"health\":{\"path\":\"/up\",\"interval\":{\"secs\":1,\"nanos\":0},
                   \"timeout\":{\"secs\":2,\"nanos\":0},\"successes\":3,
                   \"deadline\":{\"secs\":30,\"nanos\":0}}}',
                 2500, 2600, NULL);
            INSERT INTO instances VALUES ('cutover-hello-d0000000000001-0', 'hello',
                'r0000000000002', 'd0000000000001', '10.210.0.2');
            ",
        ),
        (
            3..=usize::MAX,
            "
            INSERT INTO reporting VALUES ('hello', 1);
            ",
        ),
        (
            3..=10,
            "
            INSERT INTO reports (kind, subject, commit_id, app, deployment, phase, revision, told,
                since, due_at, attempts, asked, forge_id, error)
            VALUES
                ('status', 'hello', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'hello',
                 'd0000000000001', 'live', 3, 2, 1000, 2000, 4, 0, NULL, 'down'),
                ('deployment', 'd0000000000001', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'hello',
                 'd0000000000001', 'replaced', 5, 5, 1000, 2000, 0, 1, '42', NULL);
            ",
        ),
        (
            4..=usize::MAX,
            "
            INSERT INTO pushes VALUES ('hello', 'refs/heads/main', NULL,
                'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'w0000000000001', 'd0000000000001');
            INSERT INTO tips VALUES ('hello', 'refs/heads/main', NULL,
                'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa');
            ",
        ),
        (
            5..=11,
            "
            INSERT INTO taken VALUES ('hello', 'refs/heads/main',
                'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 1, 6000);
            ",
        ),
        (
            12..=usize::MAX,
            "
            INSERT INTO pending_pushes (app, ref, commit_id, no_cache, at, old, skip, requested_by)
            VALUES ('hello', 'refs/heads/main', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 1, 6000,
                NULL, 0, '{\"kind\":\"git-http\",\"token\":\"admin\",\"user\":null}');
            INSERT INTO moved_refs VALUES ('m0000000000001', 'hello', 'w0000000000001',
                'refs/heads/main', NULL, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',
                'd0000000000001', NULL,
                '{\"kind\":\"webhook\",\"forge\":\"github\",\"user\":\"ada\"}');
            UPDATE deployments SET requested_by =
                '{\"kind\":\"webhook\",\"forge\":\"github\",\"user\":\"ada\"}'
            WHERE id = 'd0000000000001';
            ",
        ),
        (
            8..=usize::MAX,
            "
            INSERT INTO releases (id, app, deployment, commit_id, message, author, created_at,
                went_live, removed_at)
            VALUES
                ('r0000000000001', 'hello', 'd0000000000001',
                 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'First', 'Ada', 1500, 1600, 1700),
                ('r0000000000002', 'hello', 'd0000000000001',
                 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb', 'Second', 'Ada', 2500, 2600, NULL);
            INSERT INTO services (release, name, image, image_id, settings, replicas, port, protocol)
            VALUES
                ('r0000000000001', 'web', 'cutover/hello:aaaaaaaaaaaa', 'sha256:1',
                 '{\"version\":1,\"env\":{},\"memory\":null,\"cpus\":null,\"stop_grace_ms\":10000,
                   \"health\":{\"path\":\"/\",\"interval_ms\":500,\"timeout_ms\":5000,
                   \"successes\":2,\"deadline_ms\":60000}}',
                 1, 8080, 'http1'),
                ('r0000000000002', 'web', 'cutover/hello:bbbbbbbbbbbb', 'sha256:2',
                 '{\"version\":1,\"env\":{\"A\":\"1\"},\"memory\":536870912,\"cpus\":0.5,
                   \"stop_grace_ms\":1500,\"health\":{\"path\":\"/up\",\"interval_ms\":1000,
                   \"timeout_ms\":2000,\"successes\":3,\"deadline_ms\":30000}}',
                 2, 50051, 'h2c');
            ",
        ),
        (
            8..=12,
            "
            INSERT INTO instances (name, app, release, deployment, address, service)
            VALUES ('cutover-hello-d0000000000001-0', 'hello', 'r0000000000002',
                'd0000000000001', '10.210.0.2', 'web');
            ",
        ),
        (
            11..=usize::MAX,
            "
            INSERT INTO statuses (kind, subject, commit_id, app, deployment, phase, told, since,
                asked, forge_id, error)
            VALUES
                ('status', 'hello', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'hello',
                 'd0000000000001', 'live', 0, 1000, 0, NULL, 'down'),
                ('deployment', 'd0000000000001', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'hello',
                 'd0000000000001', 'replaced', 1, 1000, 1, '42', NULL);
            INSERT INTO outbox (topic, key, subject, payload, since, due_at, attempts)
            VALUES ('commit-status', 'hello', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',
                '{\"deployment\":\"d0000000000001\",
                  \"commit\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}', 1000, 2000, 4);
            ",
        ),
        (
            13..=usize::MAX,
            "
            INSERT INTO instances (name, app, release, deployment, endpoint, service)
            VALUES ('cutover-hello-d0000000000001-0', 'hello', 'r0000000000002',
                'd0000000000001', '10.210.0.2:50051', 'web');
            ",
        ),
    ];
    let known = ROWS.iter().filter(move |(of, _)| of.contains(&count));
    known.map(|(_, sql)| *sql)
}

fn written_by(folder: &Path, count: usize) {
    let mut db = Connection::open(folder.join("cutover.db")).unwrap();
    run_first(&mut db, count).unwrap();
    for sql in rows(count) {
        db.execute_batch(sql).unwrap();
    }
}

#[tokio::test]
async fn what_any_version_wrote_is_read() {
    for count in 1..=MIGRATIONS.len() {
        let folder = tempfile::tempdir().unwrap();
        written_by(folder.path(), count);
        let store = Store::open(folder.path()).unwrap();
        let read = store.read(move |db| {
            read_deployments(db);
            read_requester(db, count);
            read_releases(db);
            read_deliveries(db, count);
            if count >= 3 {
                read_statuses(db);
            }
            Ok(())
        });
        let read = read.await;
        assert!(read.is_ok(), "schema {count}: {read:?}");
    }
}

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn read_deployments(db: &Connection) {
    assert_eq!(apps::generation(db).unwrap(), 7);
    let app: AppName = id("hello");
    let serving = apps::serving(db, &app).unwrap();
    assert_eq!(serving.live, Some(id("r0000000000002")));

    let all = deployments::list(db, &app, None, 10).unwrap();
    let [queued, failed, live] = &all[..] else {
        panic!("{all:?}");
    };
    assert_eq!(
        (&live.goal, live.state),
        (&Goal::Pushed(id(A)), State::Live)
    );
    assert_eq!((live.trigger, live.no_cache), (Trigger::Webhook, false));
    assert_eq!(live.receipt.as_ref().unwrap().requests, 9);
    assert_eq!(failed.goal, Goal::Release(id("r0000000000001")));
    assert_eq!(failed.trigger, Trigger::AutoRollback);
    assert_eq!(failed.error.as_ref().unwrap().log_tail, ["x"]);
    assert_eq!((&queued.goal, queued.state), (&Goal::Branch, State::Queued));
    let steps = steps::of(db, &live.id).unwrap();
    assert_eq!(steps[0].detail.as_deref(), Some("the tip"));
}

fn read_requester(db: &Connection, count: usize) {
    let live = deployments::get(db, &id("d0000000000001"))
        .unwrap()
        .unwrap();
    let by = Requester::Webhook {
        forge: "github".into(),
        user: Some("ada".into()),
        from: None,
    };
    assert_eq!(live.requested_by, (count >= 12).then_some(by));
    assert_eq!(live.cancelled_by, None);
}

fn read_releases(db: &Connection) {
    let app: AppName = id("hello");
    let all = releases::list(db, &app, None, 10).unwrap();
    let [second, first] = &all[..] else {
        panic!("{all:?}");
    };
    assert_eq!(
        (first.message.as_str(), first.removed_at),
        ("First", Some(1700))
    );
    let web = |release: &Release| {
        assert_eq!(release.services.len(), 1);
        release.web().unwrap().clone()
    };
    let (first, second_web) = (web(first), web(second));
    assert_eq!((first.port, first.protocol), (Some(8080), Protocol::Http1));
    assert_eq!((first.settings.memory, first.replicas), (None, 1));
    assert_eq!(first.settings.health.interval, Duration::from_millis(500));
    assert_eq!(first.image, "cutover/hello:aaaaaaaaaaaa");
    assert_eq!(second_web.image_id, "sha256:2");
    assert_eq!(
        (second_web.port, second_web.protocol),
        (Some(50051), Protocol::H2c)
    );
    assert_eq!(second_web.replicas, 2);
    assert_eq!(
        second_web.settings.env["A"],
        crate::store::settings::Value::Text("1".into())
    );
    assert_eq!(second_web.settings.cpus, Some(0.5));
    assert_eq!(second_web.settings.stop_grace, Duration::from_millis(1500));
    assert_eq!(second_web.settings.health.path, "/up");
    assert_eq!(second_web.settings.health.deadline, Duration::from_secs(30));
    let kept = releases::kept(db, &app).unwrap();
    assert_eq!(kept[0].id, second.id);

    let release: ReleaseId = id("r0000000000002");
    let instances = instances::of_release(db, &release).unwrap();
    assert_eq!(instances[0].service, ServiceName::web());
    assert_eq!(instances[0].endpoint, Some(id("10.210.0.2:50051")));
}

fn read_deliveries(db: &Connection, count: usize) {
    let push = deliveries::Move {
        git_ref: "refs/heads/main".into(),
        old: None,
        new: Some(id(A)),
    };
    let again = NewDelivery {
        app: id("hello"),
        forge: "github".into(),
        forge_delivery: Some("i1".into()),
        event: "push".into(),
        body_hash: if count < 4 { "hash" } else { "another" }.into(),
        moves: vec![push.clone()],
    };
    let Seen::Before(outcome) = pushes::seen(db, &again, &push).unwrap() else {
        panic!("schema {count}: the push counts as new");
    };
    assert_eq!(
        outcome.deployment,
        Some(id::<DeploymentId>("d0000000000001"))
    );
    if count >= 5 {
        let (at, pushed) = pending_pushes::all(db).unwrap().remove(0);
        assert_eq!((pushed.commit, pushed.no_cache, at), (id(B), true, 6000));
        let by = Requester::GitHttp {
            token: "admin".into(),
            user: None,
            from: None,
        };
        assert_eq!((pushed.skip, pushed.requested_by), (false, by));
    }
}

fn read_statuses(db: &Connection) {
    let all = statuses::of(db, &id("d0000000000001")).unwrap();
    let [commit, own] = &all[..] else {
        panic!("{all:?}");
    };
    assert_eq!(
        (commit.kind, commit.phase),
        (StatusKind::Commit, StatusPhase::Live)
    );
    assert!(!commit.told);
    assert_eq!(commit.error.as_deref(), Some("down"));
    assert_eq!(
        (own.kind, own.phase),
        (StatusKind::Deployment, StatusPhase::Replaced)
    );
    assert!(own.told && own.asked);
    assert_eq!(own.forge_id.as_deref(), Some("42"));
    let waiting = statuses::waiting(db).unwrap();
    let [message] = &waiting[..] else {
        panic!("{waiting:?}");
    };
    assert_eq!((message.attempts, message.due_at), (4, 2000));
    let about = statuses::of_message(db, message).unwrap().unwrap();
    assert_eq!((about.kind, about.commit), (StatusKind::Commit, id(A)));
}
