//! Processes beside the one that takes the requests: of the same release, watched like it, and replaced
//! with it.

use std::collections::{BTreeMap, HashMap};

use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt;
use serde_json::Value;

use crate::processes::rewrite;
use crate::server::{APP, File, SETTINGS, Server, files};
use crate::support::docker::docker;
use crate::support::wait::soon;

const WORKER: &str = "[apps.hello.processes.worker]
command = [\"/hello\", \"work\"]
health = { running = \"2s\" }
";

/// How many instances each process has that are in this state.
async fn instances(server: &Server, state: &str) -> BTreeMap<String, usize> {
    let list = server.api(&format!("/api/v1/apps/{APP}/instances")).await;
    let mut counts = BTreeMap::new();
    for it in list["items"].as_array().unwrap() {
        if it["state"] == state {
            let process = it["process"].as_str().unwrap().to_owned();
            *counts.entry(process).or_default() += 1;
        }
    }
    counts
}

async fn until(server: &Server, wanted: &[(&str, usize)]) {
    let wanted: BTreeMap<_, _> = wanted.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect();
    let so = soon(async || {
        instances(server, "running").await == wanted
            && instances(server, "stopping").await.is_empty()
    });
    let so = so.await;
    let found = instances(server, "running").await;
    assert!(so, "{found:?}\n{}", server.log());
}

fn run(server: &Server, arguments: &[&str]) -> Result<String, String> {
    let done = server.cutover(arguments).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    match done.status.success() {
        true => Ok(text(&done.stdout)),
        false => Err(text(&done.stderr)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_goes_live_scales_rolls_back_and_fails_with_its_release() {
    let mut server = Server::with(&format!("{SETTINGS}{WORKER}replicas = 2\n")).await;
    server.go_live("v1").await;
    until(&server, &[("web", 1), ("worker", 2)]).await;
    let said = run(&server, &["logs", APP, "--process", "worker"]).unwrap();
    assert!(
        said.contains("v1 works") && !said.contains("listens"),
        "{said}"
    );
    let status = run(&server, &["status"]).unwrap();
    assert!(status.contains("web 1, worker 2"), "{status}");

    let load = server.load();
    let scaled = ["scale", APP, "web=2", "worker=1", "--follow"];
    run(&server, &scaled).unwrap_or_else(|error| panic!("{error}"));
    until(&server, &[("web", 2), ("worker", 1)]).await;
    let status = run(&server, &["status"]).unwrap();
    let beside = "web 2 (deploy.toml: 1), worker 1 (deploy.toml: 2)";
    assert!(status.contains(beside), "{status}");
    let wrong = run(&server, &["scale", APP, "wrker=1"]).unwrap_err();
    assert!(wrong.contains("`worker`"), "{wrong}");
    run(&server, &["scale", APP, "web=default", "worker=0", "-f"]).unwrap();
    until(&server, &[("web", 1)]).await;
    run(&server, &["scale", APP, "worker=default", "-f"]).unwrap();

    server.go_live("v2").await;
    until(&server, &[("web", 1), ("worker", 2)]).await;
    // What is scaled for the load of now stays so, and is no version to go back to.
    run(&server, &["scale", APP, "worker=3", "-f"]).unwrap();
    until(&server, &[("web", 1), ("worker", 3)]).await;
    let kept = "`worker` has 3 instances, as `cutover scale` keeps it; the release had 2";
    // A rollback that is cancelled leaves the release as it was.
    run(&server, &["rollback", APP]).unwrap();
    let list = server.api(&format!("/api/v1/apps/{APP}/deployments")).await;
    let id = list["items"][0]["id"].as_str().unwrap().to_owned();
    server.until_log(&id, "[start]").await;
    run(&server, &["cancel", &id]).unwrap();
    let (cancelled, log) = server.ended(&id).await;
    assert_eq!(cancelled.state, "cancelled", "{log:#?}");
    assert!(log.iter().any(|line| line.contains(kept)), "{log:#?}");
    let back = run(&server, &["rollback", APP, "--follow"]);
    let back = back.unwrap_or_else(|error| panic!("{error}"));
    assert!(back.contains(kept), "{back}");
    until(&server, &[("web", 1), ("worker", 3)]).await;
    let said = run(&server, &["logs", APP, "--process", "worker", "-n", "3"]).unwrap();
    assert_eq!(said.matches("v1 works").count(), 3, "{said}");
    run(&server, &["scale", APP, "worker=2", "-f"]).unwrap();

    // What the worker does counts for the whole release.
    let id = server.push("v3", "worker-exits 0").await;
    let (failed, log) = server.ended(&id).await;
    let error = failed.error.unwrap_or_default();
    assert_eq!(
        (&*failed.state, &*error.code),
        ("failed", "exited"),
        "{log:#?}"
    );
    assert!(error.message.contains("`worker`"), "{}", error.message);
    assert_eq!(error.log_tail, ["v3 works", "v3: no work left"]);
    until(&server, &[("web", 1), ("worker", 2)]).await;
    assert_eq!(server.version().await, "v1");
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{report}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ends_in_the_watch_brings_the_old_release_back() {
    let settings = SETTINGS.replace("bake = \"0s\"", "bake = \"40s\"");
    let mut server = Server::with(&format!("{settings}{WORKER}")).await;
    let first = server.push("v1", "").await;
    // The watch of a first release ends early when another push waits.
    server.until_log(&first, "[drain]").await;
    let id = server.push("v2", "worker-exits 10000").await;
    let (bad, log) = server.ended(&id).await;
    let error = bad.error.unwrap_or_default();
    assert_eq!(bad.state, "rolled_back", "{log:#?}");
    assert!(error.message.contains("`worker`"), "{}", error.message);
    let back = soon(async || {
        let app = server.api(&format!("/api/v1/apps/{APP}")).await;
        app["deployment"]["trigger"] == "auto-rollback" && app["deployment"]["state"] == "live"
    });
    assert!(back.await, "{}", server.log());
    until(&server, &[("web", 1), ("worker", 1)]).await;
    assert_eq!(server.version().await, "v1");
    server.stop().await;
}

/// The time of each container's first event of this kind, by process.
async fn events(since: i64, server: &Server) -> HashMap<(String, String), Vec<i64>> {
    let filters = HashMap::from([("type", vec!["container"])]);
    let options = EventsOptionsBuilder::new()
        .since(&since.to_string())
        .until(&(since + 600).min(now()).to_string())
        .filters(&filters);
    let docker = docker().await;
    let mut stream = docker.events(Some(options.build()));
    let mut found: HashMap<_, Vec<i64>> = HashMap::new();
    let data_dir = server.stage.data_dir.display().to_string();
    while let Some(Ok(event)) = stream.next().await {
        let attributes = event.actor.and_then(|it| it.attributes).unwrap_or_default();
        if attributes.get("cutover.data-dir") != Some(&data_dir) {
            continue;
        }
        let process = match attributes["name"].contains("-worker-") {
            true => "worker",
            false => "web",
        };
        let key = (event.action.unwrap_or_default(), process.to_owned());
        found.entry(key).or_default().push(event.time_nano.unwrap());
    }
    found
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs() as i64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_must_be_alone_starts_when_the_old_one_has_ended() {
    let begun = now();
    let mut server = Server::with(&format!("{SETTINGS}{WORKER}overlap = false\n")).await;
    server.go_live("v1").await;
    until(&server, &[("web", 1), ("worker", 1)]).await;
    let load = server.load();
    server.go_live("v2").await;
    until(&server, &[("web", 1), ("worker", 1)]).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let events = events(begun, &server).await;
    let of = |action: &str, process: &str| &events[&(action.to_owned(), process.to_owned())];
    assert_eq!(of("start", "worker").len(), 2, "{events:?}");
    assert!(
        of("die", "worker")[0] < of("start", "worker")[1],
        "{events:?}"
    );
    assert!(of("start", "web")[1] < of("die", "web")[0], "{events:?}");

    // One that does not start, after the old one had to end: both come back.
    let id = server.push("v3", "worker-exits 0").await;
    let (bad, log) = server.ended(&id).await;
    assert_eq!(bad.state, "rolled_back", "{log:#?}");
    until(&server, &[("web", 1), ("worker", 1)]).await;
    assert_eq!(server.version().await, "v2");
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{report}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_must_be_alone_waits_for_one_of_its_own_release_that_still_stops() {
    let begun = now();
    let alone = format!("{WORKER}overlap = false\nstop_grace = \"8s\"\n");
    let settings = SETTINGS.replace("stop_grace", "init = false\nstop_grace");
    let mut server = Server::with(&format!("{settings}{alone}")).await;
    // It ignores SIGTERM.
    let mut slow = files("v1", "");
    let dockerfile = slow.iter_mut().find(|it| it.path == "Dockerfile").unwrap();
    let text = String::from_utf8(dockerfile.bytes.clone()).unwrap();
    dockerfile.bytes = text.replace("STOPSIGNAL SIGKILL\n", "").into_bytes();
    let id = server.push_files(&slow, "v1").await;
    server.ended(&id).await;
    until(&server, &[("web", 1), ("worker", 1)]).await;

    rewrite(&server, &alone, "");
    run(&server, &["reload"]).unwrap();
    server.go_live("v2").await;
    let stopping = instances(&server, "stopping").await;
    assert_eq!(stopping.get("worker"), Some(&1), "{}", server.log());
    let back = run(&server, &["rollback", APP, "--follow"]).unwrap();
    assert!(
        back.contains("waiting for the end of the old `worker`"),
        "{back}"
    );
    until(&server, &[("web", 1), ("worker", 1)]).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let events = events(begun, &server).await;
    let of = |action: &str| &events[&(action.to_owned(), "worker".to_owned())];
    assert_eq!(of("start").len(), 2, "{events:?}");
    assert!(of("die")[0] < of("start")[1], "{events:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_may_have_processes_only() {
    let worker = WORKER.replace(
        "running = \"2s\"",
        "command = [\"/hello\", \"exit\", \"0\"]",
    );
    let settings = SETTINGS.replace("domains = [\"hello.test\"]\n", "");
    let mut server = Server::idle(&format!("{settings}{worker}")).await;
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let text = text.replace("port = 8080\n", "");
    std::fs::write(&server.stage.config, text).unwrap();
    server.serve().await;
    server.go_live("v1").await;
    until(&server, &[("worker", 1)]).await;
    assert_eq!(server.get("/").await.status, 404, "no route leads to it");
    server.go_live("v2").await;
    until(&server, &[("worker", 1)]).await;
    let said = run(&server, &["logs", APP, "-n", "1"]).unwrap();
    assert!(said.contains("v2 works"), "{said}");
    server.stop().await;
}

/// The sample app with itself as a shell and a Procfile.
fn with_procfile(version: &str, procfile: &str) -> Vec<File> {
    let mut files = files(version, "");
    let dockerfile = files.iter_mut().find(|it| it.path == "Dockerfile").unwrap();
    let text = String::from_utf8(dockerfile.bytes.clone()).unwrap();
    let text = text.replace("EXPOSE", "COPY hello /bin/sh\nEXPOSE");
    dockerfile.bytes = text.into_bytes();
    files.push(File::new("Procfile", procfile));
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_procfile_says_what_runs_where_deploy_toml_does_not() {
    let mut server = Server::start().await;
    let text = "web: /hello\r\nworker: /hello work\r\nrelease: ./migrate\r\n";
    let id = server.push_files(&with_procfile("v1", text), "v1").await;
    let (live, log) = server.ended(&id).await;
    assert_eq!(live.state, "live", "{log:#?}");
    let steps: Vec<_> = live.steps.iter().map(|it| it.name.as_str()).collect();
    assert!(steps.contains(&"release"), "{steps:?}");
    assert!(log.iter().any(|line| line == "v1: ./migrate"), "{log:#?}");
    until(&server, &[("web", 1), ("worker", 1)]).await;
    run(&server, &["scale", APP, "worker=2", "--follow"]).unwrap();
    until(&server, &[("web", 1), ("worker", 2)]).await;

    let wrong = with_procfile("v2", "web: /hello\nBad_Name: x\n");
    let id = server.push_files(&wrong, "v2").await;
    let (failed, _) = server.ended(&id).await;
    let error = failed.error.unwrap_or_default();
    assert_eq!((&*failed.state, &*error.code), ("failed", "procfile"));
    assert!(error.message.contains("line 2"), "{}", error.message);
    assert_eq!(server.version().await, "v1");
    let shown: Value = server.api(&format!("/api/v1/apps/{APP}/scale")).await;
    assert_eq!(shown["processes"][1]["replicas"], 2, "{shown}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_asked_over_http_or_whether_it_accepts_connections() {
    let sides = "
[apps.hello.processes.tcp]
command = [\"/hello\"]
health = { tcp = 8080 }
[apps.hello.processes.http]
command = [\"/hello\"]
health = { http = \"/health\", port = 8080 }
";
    let mut server = Server::with(&format!("{SETTINGS}{sides}")).await;
    server.go_live("v1").await;
    until(&server, &[("http", 1), ("tcp", 1), ("web", 1)]).await;
    for (good, bad, name) in [
        ("{ tcp = 8080 }", "{ tcp = 9, deadline = \"2s\" }", "`tcp`"),
        (
            "{ http = \"/health\", port = 8080 }",
            "{ http = \"/nope\", port = 8080, deadline = \"2s\" }",
            "`http`",
        ),
    ] {
        let text = std::fs::read_to_string(&server.stage.config).unwrap();
        std::fs::write(&server.stage.config, text.replace(good, bad)).unwrap();
        run(&server, &["reload"]).unwrap();
        let id = server.push(name, "").await;
        let (failed, log) = server.ended(&id).await;
        let error = failed.error.unwrap_or_default();
        assert_eq!(
            (&*failed.state, &*error.code),
            ("failed", "unhealthy"),
            "{log:#?}"
        );
        assert!(error.message.contains(name), "{}", error.message);
        std::fs::write(&server.stage.config, text).unwrap();
        until(&server, &[("http", 1), ("tcp", 1), ("web", 1)]).await;
    }
    server.stop().await;
}
