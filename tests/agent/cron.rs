//! Scheduled commands: each run takes place once, whatever happens to the agent.

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use bollard::query_parameters::ListContainersOptionsBuilder;
use rusqlite::Connection;
use serde_json::Value;

use crate::processes::rewrite;
use crate::server::{APP, SETTINGS, Server};
use crate::support::docker::docker;
use crate::support::wait::soon;

/// As often as a schedule can.
const MINUTELY: &str = "volumes = [\"VOLUME:/data\"]
[apps.hello.cron.tick]
schedule = \"* * * * *\"
command = [\"/hello\", \"append\", \"/data/ticks\", \"tick\"]
[apps.hello.cron.never]
schedule = \"0 0 29 2 *\"
command = [\"/hello\", \"exit\", \"3\"]
timeout = \"20s\"
[apps.hello.cron.long]
schedule = \"0 0 29 2 *\"
command = [\"/hello\", \"sleep\", \"SLEEP\"]
timeout = \"15s\"
[apps.hello.cron.moved]
schedule = \"0 0 29 2 *\"
command = [\"/hello\", \"exit\", \"0\"]
";
/// Longer than from one 29 February to the next.
const YEARS: i64 = 5 * 366 * 24 * 3600 * 1000;

async fn settle(server: &Server, name: &str, state: &str) -> Value {
    let path = format!("/api/v1/apps/{APP}/cron/{name}/runs");
    let mut found = Value::Null;
    let so = soon(async || {
        found = server.api(&path).await["items"][0].clone();
        found["state"] == state
    });
    assert!(so.await, "{found}\n{}", server.log());
    found
}

fn run(server: &Server, arguments: &[&str]) -> Result<String, String> {
    let done = server.cutover(arguments).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    match done.status.success() {
        true => Ok(text(&done.stdout)),
        false => Err(text(&done.stderr)),
    }
}

/// The agent believes that it last looked this long ago, in milliseconds, and that nothing ran since.
fn forget(server: &Server, name: &str, ms: i64) {
    let db = Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let sql = "UPDATE crons SET seen = seen - ?2 WHERE name = ?1";
    assert_eq!(db.execute(sql, (name, ms)).unwrap(), 1);
    let sql = "DELETE FROM jobs WHERE cron = ?1 AND ended_at IS NOT NULL";
    db.execute(sql, [name]).unwrap();
}

/// The containers of runs.
async fn listed(server: &Server) -> Vec<ContainerSummary> {
    let docker = docker().await;
    let all = ListContainersOptionsBuilder::new().all(true).build();
    let mut all = docker.list_containers(Some(all)).await.unwrap();
    let data_dir = server.stage.data_dir.display().to_string();
    all.retain(|it| {
        let labels = it.labels.as_ref().unwrap();
        let name = it.names.as_ref().unwrap()[0].clone();
        labels.get("cutover.data-dir") == Some(&data_dir) && name.contains("-cron-")
    });
    all
}

async fn containers(server: &Server) -> usize {
    listed(server).await.len()
}

/// Waits until the container of a run whose name has `part` is in this state.
async fn until(server: &Server, part: &str, state: ContainerSummaryStateEnum) {
    let is_so = soon(async || {
        let all = listed(server).await;
        let mut all = all.iter();
        let found = all.find(|it| it.names.as_ref().unwrap()[0].contains(part));
        found.is_some_and(|it| it.state == Some(state))
    });
    assert!(is_so.await, "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_takes_place_once_although_the_agent_is_killed() {
    let volume = format!("ticks-{}", std::process::id());
    let settings = MINUTELY
        .replace("VOLUME", &volume)
        .replace("SLEEP", "60000");
    let mut server = Server::with(&format!("{SETTINGS}{settings}")).await;
    let refused = run(&server, &["cron", APP, "never", "--run"]).unwrap_err();
    assert!(refused.contains("live"), "{refused}");
    let code = |arguments: &[&str]| server.cutover(arguments).status().unwrap().code();
    assert_eq!(code(&["cron", APP, "never", "--run"]), Some(1));
    assert_eq!(code(&["cron", APP, "nevr"]), Some(2));
    assert_eq!(code(&["cron", APP]), Some(0));
    server.go_live("v1").await;

    // By hand: its exit code is told.
    run(&server, &["cron", APP, "never", "--run"]).unwrap();
    let failed = settle(&server, "never", "failed").await;
    assert_eq!(failed["exit_code"], 3, "{failed}");
    let shown = run(&server, &["cron", APP, "never"]).unwrap();
    assert!(shown.contains("failed with code 3"), "{shown}");
    let shown = run(&server, &["cron", APP]).unwrap();
    assert!(shown.contains("0 0 29 2 * UTC"), "{shown}");
    assert!(
        run(&server, &["cron", APP, "nevr"])
            .unwrap_err()
            .contains("`never`")
    );

    // It takes too long.
    run(&server, &["cron", APP, "long", "--run"]).unwrap();
    let stopped = settle(&server, "long", "stopped").await;
    assert!(
        stopped["outcome"].as_str().unwrap().contains("15s"),
        "{stopped}"
    );

    // Killed in the middle of a run: the next agent goes on with it.
    run(&server, &["cron", APP, "long", "--run"]).unwrap();
    let running = settle(&server, "long", "running").await;
    let began = soon(async || containers(&server).await == 1).await;
    assert!(began, "{}", server.log());
    server.agent().kill().await.unwrap();
    server.serve().await;
    let ended = settle(&server, "long", "stopped").await;
    assert_eq!(ended["id"], running["id"], "the same run: {ended}");

    // Its time passed several times while no agent ran: once.
    forget(&server, "tick", 60_000);
    run(&server, &["cron", APP, "never", "--run"]).unwrap();
    settle(&server, "tick", "succeeded").await;
    // A container whose row is forgotten below would be nobody's.
    let quiet = soon(async || containers(&server).await == 0).await;
    assert!(quiet, "{}", server.log());
    server.agent().kill().await.unwrap();
    forget(&server, "tick", 10 * 60_000);
    // What is due so seldom has no run but one that is made up for, also in another time zone from now on.
    forget(&server, "never", YEARS);
    forget(&server, "moved", YEARS);
    let section = "[apps.hello.cron.moved]\n";
    let moved = format!("{section}timezone = \"Europe/Berlin\"\n");
    rewrite(&server, section, &moved);
    server.serve().await;
    settle(&server, "never", "failed").await;
    settle(&server, "moved", "succeeded").await;
    let made_up = soon(async || ticks(&server).await > 0).await;
    assert!(made_up, "{}", server.log());
    let path = format!("/api/v1/apps/{APP}/cron/tick/runs");
    let all = server.api(&path).await["items"].as_array().unwrap().clone();
    let mut due: Vec<_> = all.iter().map(|it| it["due_at"].to_string()).collect();
    let count = due.len();
    due.sort();
    due.dedup();
    assert_eq!(due.len(), count, "each once: {all:#?}");
    assert!(ticks(&server).await <= 2, "{all:#?}");
    let gone = soon(async || containers(&server).await == 0).await;
    assert!(gone, "no container is left");

    let removed = server.cutover(&["remove", APP, "--yes", "--volumes"]);
    assert!({ removed }.status().unwrap().success());
    let list = format!("/api/v1/apps/{APP}/cron");
    let never = soon(async || server.api(&list).await["items"][0]["next_at"].is_null());
    assert!(never.await, "nothing runs of what is removed");
    server.stop().await;
}

/// How many runs of `tick` have succeeded.
async fn ticks(server: &Server) -> usize {
    let runs = server
        .api(&format!("/api/v1/apps/{APP}/cron/tick/runs"))
        .await;
    let runs = runs["items"].as_array().unwrap().iter();
    runs.filter(|it| it["state"] == "succeeded").count()
}

/// What becomes of a run whose time comes while the one before goes on, or while no agent runs.
const OVERLAPS: &str = "
[apps.hello.cron.queued]
schedule = \"* * * * *\"
command = [\"/hello\", \"sleep\", \"4000\"]
overlap = \"queue\"
[apps.hello.cron.killed]
schedule = \"* * * * *\"
command = [\"/hello\", \"sleep\", \"30000\"]
overlap = \"kill\"
[apps.hello.cron.away]
schedule = \"0 0 29 2 *\"
command = [\"/hello\", \"sleep\", \"6000\"]
overlap = \"kill\"
[apps.hello.cron.missed]
schedule = \"* * * * *\"
command = [\"/hello\", \"exit\", \"0\"]
missed = \"skip\"
[apps.hello.cron.never]
schedule = \"0 0 29 2 *\"
command = [\"/hello\", \"exit\", \"0\"]
";

/// The oldest first.
async fn runs(server: &Server, name: &str) -> Vec<Value> {
    let path = format!("/api/v1/apps/{APP}/cron/{name}/runs");
    let mut all = server.api(&path).await["items"].as_array().unwrap().clone();
    all.reverse();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_the_one_before_or_takes_its_place_and_a_missed_one_may_be_skipped() {
    let mut server = Server::with(&format!("{SETTINGS}{OVERLAPS}")).await;
    server.go_live("v1").await;
    for name in ["queued", "killed"] {
        // At the full minute it runs already.
        if let Err(said) = run(&server, &["cron", APP, name, "--run"]) {
            assert!(said.contains("is running already"), "{said}");
        }
        settle(&server, name, "running").await;
        forget(&server, name, 60_000);
    }
    // So that the agent looks now.
    run(&server, &["cron", APP, "never", "--run"]).unwrap();
    let replaced = soon(async || {
        let all = runs(&server, "killed").await;
        let stopped = all.iter().any(|it| {
            let why = it["outcome"].as_str().unwrap_or_default();
            why.contains("the next run was due")
        });
        stopped && all.iter().any(|it| it["state"] == "running")
    });
    assert!(replaced.await, "{:#?}", runs(&server, "killed").await);
    let said = soon(async || {
        let log = server.log();
        log.contains("a scheduled run stopped: the next run was due")
    });
    assert!(said.await, "{}", server.log());
    assert!(!server.log().contains("a scheduled run failed"));
    let both = soon(async || {
        let all = runs(&server, "queued").await;
        all.iter().filter(|it| it["state"] == "succeeded").count() >= 2
    });
    assert!(both.await, "{:#?}", runs(&server, "queued").await);
    let all = runs(&server, "queued").await;
    let (ended, began) = (&all[0]["ended_at"], &all[1]["started_at"]);
    assert!(
        began.as_str() >= ended.as_str(),
        "one after the other: {all:#?}"
    );

    run(&server, &["cron", APP, "away", "--run"]).unwrap();
    until(&server, "-away-", ContainerSummaryStateEnum::RUNNING).await;
    server.agent().kill().await.unwrap();
    forget(&server, "missed", 10 * 60_000);
    // It ends, and the next one is due, while no agent runs.
    forget(&server, "away", 5 * 366 * 24 * 3_600_000);
    until(&server, "-away-", ContainerSummaryStateEnum::EXITED).await;
    server.serve().await;
    let first = async || runs(&server, "away").await[0].clone();
    let known = soon(async || first().await["state"] != "running").await;
    assert!(known, "{}", first().await);
    assert_eq!(first().await["state"], "succeeded", "{}", first().await);
    let skipped = soon(async || {
        let all = runs(&server, "missed").await;
        all.iter().any(|it| it["state"] == "skipped")
    });
    assert!(skipped.await, "{:#?}", runs(&server, "missed").await);
    server.stop().await;
}
