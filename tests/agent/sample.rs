//! The sample with everything, `examples/queue`, deployed again and again while it works.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use ::http::Request;

use crate::server::{APP, File, Server, files};
use crate::support::demo::http;
use crate::support::wait::soon;

const CONFIG: &str = include_str!("../../examples/queue/deploy.toml");
const DOCKERFILE: &str = include_str!("../../examples/queue/Dockerfile");
const DEPLOYMENTS: usize = 10;
const KEY: &str = "open-sesame-9c1e";

/// The sample's files, with the program that is the same for all samples.
fn sample(version: &str) -> Vec<File> {
    let mut files = files(version, "");
    let dockerfile = files.iter_mut().find(|it| it.path == "Dockerfile").unwrap();
    dockerfile.bytes = DOCKERFILE.into();
    files
}

/// Its settings, but for where things are, and for how long the test is to wait.
fn settings() -> String {
    let text = CONFIG.split_once("domains = ").unwrap().1;
    let text = text.replace("queue.example.com", "hello.test");
    let text = text.replace("port    = 8080\n", "");
    let text = text.replace("apps.queue", "apps.hello");
    let (before, webhook) = text.split_once("[apps.hello.webhook]").unwrap();
    let (_, after) = webhook.split_once("\n\n").unwrap();
    // No other server of the tests may have the same volume.
    let volume = format!("data-{}:/data", std::process::id());
    let after = after.replace("data:/data", &volume);
    let quick = "interval = \"50ms\"\n\n[apps.hello.deploy]\nbake = \"0s\"\n";
    let after = after.replace(
        "path = \"/health\"\n",
        &format!("path = \"/health\"\n{quick}"),
    );
    format!("domains = {before}{after}")
}

/// What is in a file of the volume; nothing if there is none.
fn lines(server: &Server, file: &str) -> Vec<String> {
    let path = format!("/data/{file}");
    let cat = ["exec", APP, "--", "/hello", "cat", &path];
    let done = server.cutover(&cat).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_is_deployed_ten_times_and_no_request_and_no_job_is_lost() {
    let mut server = Server::with(&settings()).await;
    let proxy = server.agent().proxy;
    let mut set = server.cutover(&["secret", "set", APP, "API_KEY"]);
    let mut set = set.stdin(Stdio::piped()).spawn().unwrap();
    set.stdin.take().unwrap().write_all(KEY.as_bytes()).unwrap();
    assert!(set.wait().unwrap().success());
    let deploy = async |server: &Server, version: &str| {
        let id = server.push_files(&sample(version), version).await;
        let (live, log) = server.ended(&id).await;
        assert_eq!(live.state, "live", "{log:#?}\n{}", server.log());
    };
    deploy(&server, "v0").await;
    let told = http::get(proxy, "hello.test", "/env").await.unwrap();
    assert!(told.text().contains(&format!("API_KEY={KEY}")));

    let load = server.load();
    let stop = Arc::new(AtomicBool::new(false));
    let posting = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut taken = BTreeSet::new();
            while !stop.load(SeqCst) {
                let id = format!("job-{:06}", taken.len());
                let request = Request::post("/jobs").header("host", "hello.test");
                let answer = http::send(proxy, request, id.clone().into_bytes()).await;
                let answer = answer.unwrap();
                assert_eq!(answer.status, 200, "{}", answer.text());
                taken.insert(id);
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            taken
        }
    });
    for number in 1..=DEPLOYMENTS {
        deploy(&server, &format!("v{number}")).await;
    }
    stop.store(true, SeqCst);
    let taken = posting.await.unwrap();
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{report}");

    let all = soon(async || lines(&server, "done").len() >= taken.len()).await;
    let done = lines(&server, "done");
    assert!(all, "{} of {}\n{}", done.len(), taken.len(), server.log());
    let once: BTreeSet<String> = done.iter().cloned().collect();
    assert_eq!(once.len(), done.len(), "no job was done twice");
    assert_eq!(once, taken);
    println!("{} jobs, {report}", done.len());

    // The scheduled command ran once for each time that was due, on the same volume.
    let runs = format!("/api/v1/apps/{APP}/cron/tick/runs");
    let ticked = soon(async || {
        let runs = server.api(&runs).await["items"].as_array().unwrap().clone();
        let ended = runs.iter().filter(|it| it["state"] == "succeeded").count();
        ended > 0 && ended == runs.len() && lines(&server, "ticks").len() == ended
    });
    assert!(
        ticked.await,
        "{}\n{}",
        server.api(&runs).await,
        server.log()
    );
    let remove = ["remove", APP, "--yes", "--volumes"];
    assert!(server.cutover(&remove).status().unwrap().success());
    server.stop().await;
}
