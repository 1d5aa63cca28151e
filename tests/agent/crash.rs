//! The agent is killed at every checkpoint, under load, and the laws hold: every delivery reaches
//! one rest state, the newest commit goes live or there is a reason, no client sees a failure, and
//! Docker, the routes and the database agree. `CUTOVER_AGENT_KILLS=20` runs the full number of the
//! kills at whatever moment.

use std::time::Duration;

use crate::server::{APP, File, HOST, Server, files};
use crate::support::demo::forge;
use crate::support::demo::http::Answer;
use crate::support::docker::docker;
use crate::support::mix::Mix;
use crate::support::wait::soon;
use cutover::cli::Error;
use cutover::deploy::checkpoint::Checkpoint;
use cutover::state::Step;
use serde_json::Value;

const SETTINGS: &str = r#"
domains = ["hello.test"]
[apps.hello.health]
interval = "100ms"
deadline = "10s"
[apps.hello.deploy]
bake = "1s"
drain = "5s"
[apps.hello.hooks]
test = "check"
release = "migrate"
"#;

/// The sample app with itself as `/bin/sh`, so that hooks run: it says what it was told to run.
fn with_shell(version: &str, behaviour: &str) -> Vec<File> {
    let mut files = files(version, behaviour);
    let hello = files
        .iter()
        .find(|file| file.path == "hello")
        .unwrap()
        .clone();
    files.push(File {
        path: "sh".into(),
        ..hello
    });
    let dockerfile = files
        .iter_mut()
        .find(|file| file.path == "Dockerfile")
        .unwrap();
    let text = String::from_utf8(dockerfile.bytes.clone()).unwrap();
    dockerfile.bytes = text
        .replace("EXPOSE", "COPY sh /bin/sh\nEXPOSE")
        .into_bytes();
    files
}

async fn deliver(server: &mut Server, payload: &Value) -> Result<Answer, Error> {
    let address = server.agent().address;
    forge::deliver(address, APP, &server.stage.secret, "push", payload).await
}

/// The newest deployment, once it and every other one are at rest.
async fn at_rest(server: &Server, at: &str) -> Value {
    let mut last = Value::Null;
    for _ in 0..60 {
        let list = server.api(&format!("/api/v1/apps/{APP}/deployments")).await;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        last = items.first().cloned().unwrap_or_default();
        if !items.is_empty() && items.iter().all(|item| item["ended_at"].is_string()) {
            return last;
        }
        // Follows one to its end: an event, not a clock.
        let open = items
            .iter()
            .find(|item| item["ended_at"].is_null())
            .unwrap();
        server.ended(open["id"].as_str().unwrap()).await;
    }
    panic!("{at}: not at rest: {last:#}\n{}", server.log());
}

/// L4 and L5: once what is retiring has stopped, one instance runs, the database knows it and no other,
/// and is whole.
pub async fn agrees(server: &Server, at: &str) {
    let db = rusqlite::Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let whole: String = db
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(whole, "ok", "{at}");
    let names = |sql: &str| -> Vec<String> {
        let mut query = db.prepare(sql).unwrap();
        let rows = query.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let live = names(
        "SELECT '/' || i.name FROM instances i
         JOIN apps a ON a.name = i.app AND a.live_release = i.release
         WHERE i.retiring_since IS NULL",
    );
    assert_eq!(live.len(), 1, "{at}: one live instance");
    let all = || names("SELECT '/' || name FROM instances");
    let alone = soon(async || all() == live && containers(server).await == live).await;
    let left = containers(server).await;
    assert!(alone, "{at}: {live:?}, {:?}, {left:?}", all());
}

/// The containers of this agent, by name.
async fn containers(server: &Server) -> Vec<String> {
    let label = format!("cutover.data-dir={}", server.stage.data_dir.display());
    let options = bollard::query_parameters::ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&std::collections::HashMap::from([(
            "label",
            vec![label.as_str()],
        )]))
        .build();
    let found = docker().await.list_containers(Some(options)).await.unwrap();
    found
        .into_iter()
        .map(|container| container.names.unwrap().remove(0))
        .collect()
}

/// Kills the agent at each checkpoint of a push that is good, or of one that never gets healthy.
async fn kill_at(settings: &str, checkpoints: Vec<Checkpoint>) {
    let mut server = Server::with(settings).await;
    let id = server.push_files(&with_shell("v0", ""), "v0").await;
    let (first, log) = server.ended(&id).await;
    assert_eq!(first.state, "live", "{log:#?}\n{}", server.log());

    let mut serves = "v0".to_owned();
    for (number, checkpoint) in checkpoints.into_iter().enumerate() {
        let name = checkpoint.name();
        let fails = matches!(checkpoint, Checkpoint::Undoing | Checkpoint::Undone);
        server.agent().kill().await.unwrap();
        server.set_env("CUTOVER_KILL_AT", &name);
        server.serve().await;
        let load = server.load();
        load.until_more(20).await;

        let version = format!("v{}", number + 1);
        let files = with_shell(&version, if fails { "unhealthy" } else { "" });
        let (old, commit) = server.stage.commit("main", &files, &version).unwrap();
        let payload = forge::payload("refs/heads/main", &old, &commit, &version);
        // Killed at `enqueued` it cannot answer any more; the forge then delivers again.
        let first = deliver(&mut server, &payload).await;
        let ended = tokio::time::timeout(Duration::from_secs(60), server.agent().ended()).await;
        assert!(ended.is_ok(), "{name} was not reached\n{}", server.log());
        // Requests to an app that makes room wait for the next agent.
        if !settings.contains("recreate") {
            load.until_more(20).await;
        }

        server.set_env("CUTOVER_KILL_AT", "");
        server.serve().await;
        let again = deliver(&mut server, &payload).await.unwrap().json();
        if let Ok(first) = first {
            assert_eq!(
                first.json()["deployment"],
                again["deployment"],
                "{name}: counted once"
            );
        }
        let ended = at_rest(&server, &name).await;
        assert_eq!(
            ended["id"], again["deployment"],
            "{name}: no deployment but the one"
        );
        assert_eq!(ended["commit"], commit.as_str(), "{name}");
        if fails {
            assert_eq!(ended["state"], "failed", "{name}: {ended:#}");
            assert_eq!(ended["error"]["code"], "unhealthy", "{name}: {ended:#}");
        } else {
            assert_eq!(ended["state"], "live", "{name}: {ended:#}");
            assert_eq!(ended["current"], true, "{name}: {ended:#}");
            serves = version;
        }
        assert_eq!(server.version().await, serves, "{name}");
        let report = load.stop().await;
        assert!(report.failures.is_empty(), "{name}: {:#?}", report.failures);
        agrees(&server, &name).await;
    }
    server.stop().await;
}

fn checkpoints(of: impl Fn(Step) -> bool) -> Vec<Checkpoint> {
    let all = Checkpoint::all().into_iter();
    all.filter(|checkpoint| match checkpoint {
        Checkpoint::Started(step) | Checkpoint::Effected(step) => of(*step),
        _ => false,
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_the_image_is_made() {
    kill_at(SETTINGS, checkpoints(|step| step <= Step::Release)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_around_the_switch() {
    kill_at(SETTINGS, checkpoints(|step| step > Step::Release)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_queue_while_undoing_and_at_the_end() {
    use Checkpoint::{Ended, Enqueued, Stopped, Undoing, Undone};
    kill_at(SETTINGS, vec![Enqueued, Undoing, Undone, Ended, Stopped]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_the_old_release_makes_room() {
    let settings = SETTINGS.replace(
        "[apps.hello.deploy]",
        "[apps.hello.deploy]\nstrategy = \"recreate\"",
    );
    let mut around = checkpoints(|step| (Step::Start..=Step::Drain).contains(&step));
    around.extend([Checkpoint::Undoing, Checkpoint::Undone]);
    kill_at(&settings, around).await;
}

#[test]
fn no_checkpoint_is_left_out() {
    // A push over http, which is cut short in `git_push_live`.
    let covered = checkpoints(|_| true).len() + 5 + 1;
    assert_eq!(covered, Checkpoint::all().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_panics_ends_the_agent_and_nothing_is_lost() {
    let mut server = Server::start().await;
    server.go_live("v1").await;
    server.agent().kill().await.unwrap();
    server.set_env("CUTOVER_PANIC_AT", "fetch.started");
    server.serve().await;
    let id = server.push("v2", "").await;
    let ended = tokio::time::timeout(Duration::from_secs(30), server.agent().ended()).await;
    let status = ended.unwrap_or_else(|_| panic!("it lives on\n{}", server.log()));
    assert_eq!(status.unwrap().code(), Some(1));
    assert!(
        server.log().contains("panicked; ending the agent"),
        "{}",
        server.log()
    );
    assert_eq!(server.version().await, "v1", "the proxy serves on");

    server.set_env("CUTOVER_PANIC_AT", "");
    server.serve().await;
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "live", "{log:#?}\n{}", server.log());
    assert_eq!(server.version().await, "v2");
    server.stop().await;
}

/// At whatever moment it comes, and with everything under way that a client can have.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_it_adopts_the_proxy_and_costs_nobody_anything() {
    let kills = std::env::var("CUTOVER_AGENT_KILLS").map_or(3, |n| n.parse().unwrap());
    let mut server = Server::start().await;
    server.go_live("1").await;
    let proxy = server.agent().proxy;
    let control = cutover::proxy::control::Client::new(server.stage.data_dir.join("proxy.sock"));
    let pid = control.hello().await.unwrap().pid;
    let counter = server.counter().await;
    let mix = Mix::start(proxy, HOST);
    for version in 2..kills + 2 {
        mix.until_more().await;
        let id = server.push(&version.to_string(), "").await;
        // Ever later in the deployment, up to its end.
        tokio::time::sleep(Duration::from_millis(version * 150 % 900)).await;
        server.agent().kill().await.unwrap();
        mix.until_more().await;
        server.serve().await;
        assert_eq!(server.agent().proxy, proxy);
        let (ended, log) = server.ended(&id).await;
        assert_eq!(ended.state, "live", "{log:#?}\n{}", server.log());
        mix.switched_to(version);
    }
    let mixed = mix.stop().await;
    mixed.assert_whole();
    assert!(
        mixed.going_away >= kills && mixed.events_ended >= kills,
        "{mixed:?}"
    );
    counter.each_once(&mixed.report.posted).await;
    assert_eq!(
        control.hello().await.unwrap().pid,
        pid,
        "the proxy lived on"
    );
    server.stop().await;
}
