//! A cancellation at each step: what it stops, and what it leaves.

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
