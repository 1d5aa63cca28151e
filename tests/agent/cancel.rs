//! A cancellation at each step: what it stops, and what it leaves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use cutover::cli::setup::DEFAULT_HOST;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::processes::rewrite;
use crate::server::{APP, File, SETTINGS, Server, files};
use crate::support::tool;
use crate::support::wait::soon;

const STEPS: &str = "
[apps.hello.test]
command = \"test ! -e /slow-test || sleep SECONDS\"
[apps.hello.hooks]
release = \"test ! -e /slow-release || sleep SECONDS\"
";

const DOCKERFILE: &str = "FROM scratch
COPY busybox /bin/busybox
COPY busybox /bin/sh
ENV PATH=/bin
RUN [\"busybox\", \"--install\", \"/bin\"]
COPY hello version behaviour /
STOPSIGNAL SIGKILL
ENTRYPOINT [\"/hello\"]
";

/// How long what is to be cancelled sleeps: nobody else's processes do so.
fn seconds() -> String {
    format!("1{:07}", std::process::id())
}

fn app(version: &str, behaviour: &str, more: &str) -> Option<Vec<File>> {
    let mut all = files(version, behaviour);
    all.retain(|it| it.path != "Dockerfile");
    all.push(File::new("Dockerfile", format!("{DOCKERFILE}{more}\n")));
    let Ok(busybox) = std::fs::read("/bin/busybox") else {
        tool::skip("there is no /bin/busybox (apt-get install busybox-static)");
        return None;
    };
    all.push(File {
        mode: 0o100_755,
        ..File::new("busybox", busybox)
    });
    Some(all)
}

/// The processes of this machine, in whatever container, that sleep so long.
fn sleeping() -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.map(|process| std::fs::read(process.path().join("cmdline")));
    let sleeps = |line: &[u8]| {
        line.split(|byte| *byte == 0)
            .any(|it| it == seconds().as_bytes())
    };
    lines.flatten().filter(|line| sleeps(line)).count()
}

async fn cancel(server: &Server, id: &str) -> bool {
    let mut cancel = server.cutover(&["cancel", id]);
    let done = tokio::task::spawn_blocking(move || cancel.output());
    done.await.unwrap().unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_cancelled_ends_with_all_that_it_started() {
    let Some(first) = app("v1", "", "") else {
        return;
    };
    let steps = STEPS.replace("SECONDS", &seconds());
    let settings = SETTINGS.replace("bake = \"0s\"", "bake = \"3s\"");
    let server = Server::with(&format!("{settings}{steps}")).await;
    let id = server.push_files(&first, "v1").await;
    let (live, log) = server.ended(&id).await;
    assert_eq!(live.state, "live", "{log:#?}");
    let forks = format!(
        "RUN sleep {0} & (sleep {0} & setsid sleep {0}) & wait",
        seconds()
    );
    for (state, many, behaviour, more) in [
        ("building", 3, "", forks.as_str()),
        ("testing", 1, "", "RUN touch /slow-test"),
        ("releasing", 1, "", "RUN touch /slow-release"),
        ("probing", 0, "slow-start 60000", ""),
    ] {
        let id = server
            .push_files(&app(state, behaviour, more).unwrap(), state)
            .await;
        let path = format!("/api/v1/deployments/{id}");
        let is_there = async || server.api(&path).await["state"] == state && sleeping() >= many;
        assert!(
            soon(is_there).await,
            "{state}: {} {}",
            sleeping(),
            server.api(&path).await
        );
        assert!(cancel(&server, &id).await, "{state}");
        let (ended, log) = server.ended(&id).await;
        assert_eq!(ended.state, "cancelled", "{log:#?}");
        let is_over = soon(async || sleeping() == 0).await;
        assert!(is_over, "{state}: {} processes are left", sleeping());
        assert_eq!(server.version().await, "v1");
        crate::crash::agrees(&server, state).await;
    }
    // What gets the requests stays.
    let id = server.push_files(&app("v2", "", "").unwrap(), "v2").await;
    let path = format!("/api/v1/deployments/{id}");
    assert!(soon(async || server.api(&path).await["state"] == "baking").await);
    assert!(!cancel(&server, &id).await);
    let (live, log) = server.ended(&id).await;
    assert_eq!(live.state, "live", "{log:#?}");
    assert_eq!(server.version().await, "v2");
    crate::crash::agrees(&server, "baking").await;
    let removed = server.cutover(&["remove", APP, "--yes"]).status().unwrap();
    assert!(removed.success());
}

/// Docker's socket by another name, which keeps requests to start a container to itself for as long as it is told.
fn relay(path: &Path, holds: &Arc<AtomicBool>) {
    let listener = UnixListener::bind(path).unwrap();
    let holds = holds.clone();
    tokio::spawn(async move {
        while let Ok((agent, _)) = listener.accept().await {
            let engine = UnixStream::connect(DEFAULT_HOST.trim_start_matches("unix://"));
            let (mut asked, mut answers) = agent.into_split();
            let (mut from, mut to) = engine.await.unwrap().into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from, &mut answers).await });
            let holds = holds.clone();
            tokio::spawn(async move {
                let mut bytes = vec![0; 64 << 10];
                while let Ok(length @ 1..) = asked.read(&mut bytes).await {
                    let bytes = &bytes[..length];
                    let starts = bytes.windows(11).any(|it| it == b"/start HTTP");
                    while starts && holds.load(SeqCst) {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    if to.write_all(bytes).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_others_can_be_cancelled_until_the_switch() {
    let holds = Arc::new(AtomicBool::new(false));
    let mut server = Server::idle(SETTINGS).await;
    let socket = server.stage.folder.join("docker.sock");
    relay(&socket, &holds);
    rewrite(
        &server,
        DEFAULT_HOST,
        &format!("unix://{}", socket.display()),
    );
    server.serve().await;
    server.go_live("v1").await;
    let is = async |id: &str, state: &str| {
        let path = format!("/api/v1/deployments/{id}");
        let there = soon(async || server.api(&path).await["state"] == state).await;
        assert!(there, "{state}: {}", server.api(&path).await);
    };
    let cancelled = async |id: &str, state: &str| {
        assert!(cancel(&server, id).await, "{state}");
        let (ended, log) = server.ended(id).await;
        assert_eq!(ended.state, "cancelled", "{log:#?}");
        assert_eq!(server.version().await, "v1");
    };

    // Docker does not answer.
    holds.store(true, SeqCst);
    let id = server.push("v2", "").await;
    is(&id, "starting").await;
    cancelled(&id, "starting").await;
    holds.store(false, SeqCst);
    crate::crash::agrees(&server, "starting").await;

    // Requests in flight.
    let id = server.push("v3", "slow-start 3000").await;
    server.until_log(&id, "[probe] not healthy yet").await;
    let slow = async { server.get("/slow?ms=10000").await };
    let switched = async {
        is(&id, "draining").await;
        assert!(!cancel(&server, &id).await);
        let (live, log) = server.ended(&id).await;
        assert_eq!(live.state, "live", "{log:#?}");
    };
    let (answer, ()) = tokio::join!(slow, switched);
    assert_eq!(answer.text(), "slowly from v1\n");
    assert_eq!(server.version().await, "v3");

    // The forge takes the connection, and that is all.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let mut lines = text.lines();
    let own = lines.find(|line| line.starts_with("repo = ")).unwrap();
    let address = silent.local_addr().unwrap();
    rewrite(
        &server,
        own,
        &format!("repo = \"http://{address}/hello.git\""),
    );
    let reloaded = server.cutover(&["reload"]).output().unwrap();
    assert!(reloaded.status.success(), "{reloaded:?}");
    let asked = server.cutover(&["deploy", APP, "--json"]).output().unwrap();
    let asked: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
    let id = asked["id"].as_str().unwrap();
    let connected = silent.accept().await.unwrap();
    is(id, "fetching").await;
    assert!(cancel(&server, id).await);
    let (ended, log) = server.ended(id).await;
    assert_eq!(ended.state, "cancelled", "{log:#?}");
    assert_eq!(server.version().await, "v3");
    crate::crash::agrees(&server, "fetching").await;
    drop(connected);
    server.stop().await;
}
