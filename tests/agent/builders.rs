//! What stands between a commit and its start: a test of the image, and builders other than Docker's.

use bollard::Docker;

use crate::server::{APP, File, SETTINGS, Server, files};
use crate::support::docker::docker;
use crate::support::tool;
use crate::support::wait::soon;

const DOCKERFILE: &str = "\
FROM scratch AS run
COPY hello version behaviour /
STOPSIGNAL SIGKILL
ENTRYPOINT [\"/hello\"]
FROM run AS test
COPY hello /bin/sh
";

const GATE: &str = "
[apps.hello.build]
target = \"run\"
[apps.hello.test]
target = \"test\"
command = \"run-tests\"
timeout = \"60s\"
";

/// The sample app with one file in another form.
fn with(version: &str, behaviour: &str, file: File) -> Vec<File> {
    let mut all = files(version, behaviour);
    all.retain(|it| it.path != file.path);
    all.push(file);
    all
}

async fn exists(docker: &Docker, image: &str) -> bool {
    docker.inspect_image(image).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_fails_its_test_never_starts() {
    let server = Server::with(&format!("{SETTINGS}{GATE}")).await;
    let docker = docker().await;
    let push = async |version: &str, behaviour: &str| {
        let files = with(version, behaviour, File::new("Dockerfile", DOCKERFILE));
        let id = server.push_files(&files, version).await;
        let (deployment, log) = server.ended(&id).await;
        let left = exists(&docker, &format!("cutover/{APP}:{id}-test")).await;
        assert!(!left, "the tested image is left");
        (deployment, log.join("\n"))
    };
    // Only the tested stage has what stands in for a shell.
    let (good, log) = push("v1", "").await;
    assert_eq!(good.state, "live", "{log}");
    assert!(log.contains("v1: run-tests"), "{log}");
    let (bad, log) = push("v2", "command-fails").await;
    assert_eq!(bad.state, "failed", "{log}");
    let error = bad.error.unwrap();
    assert_eq!(
        (error.code.as_str(), error.step.as_deref()),
        ("test_failed", Some("test"))
    );
    assert!(!log.contains("[start]"), "{log}");
    assert_eq!(server.version().await, "v1");
}

const PROGRAM: &str = "
[apps.hello.build]
command = [\"sh\", \"build.sh\", \"{image}\"]
args = { EDITION = \"free\" }
";

/// Leaves an image as any builder does, by the engine's API.
const BUILD: &str = r#"set -e
test "$1" = "$IMAGE" && test "$EDITION" = free && test -z "$SECRET"
test "$CUTOVER_APP" = hello && test "$CUTOVER_COMMIT" = "$SOURCE_COMMIT" && test "$CUTOVER_REF" = refs/heads/main
echo "building for $SOURCE_COMMIT"
url="http://docker/images/create?fromSrc=-&repo=${1%:*}&tag=${1##*:}"
tar -c hello version behaviour | curl -sf --unix-socket "${DOCKER_HOST#unix://}" \
    -H 'Content-Type: application/x-tar' --data-binary @- \
    "$url&changes=ENTRYPOINT%20%5B%22%2Fhello%22%5D"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn any_program_may_build_and_ends_when_it_is_told() {
    if tool::find("curl", "curl").is_none() {
        return;
    }
    let mut server = Server::idle(&format!("{SETTINGS}{PROGRAM}")).await;
    server.set_env("SECRET", "not for builders");
    server.serve().await;
    let docker = docker().await;
    let script = |text: &str| File::new("build.sh", text);
    let id = server
        .push_files(&with("v1", "", script(BUILD)), "v1")
        .await;
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "live", "{log:#?}");
    let commit = deployment.commit.unwrap();
    assert!(log.contains(&format!("building for {commit}")), "{log:#?}");
    assert_eq!(server.version().await, "v1");
    assert!(!exists(&docker, &format!("cutover/{APP}:{id}-build")).await);

    // The same again is not built again.
    let again = server
        .cutover(&["deploy", APP, "--follow"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(
        said.contains("nothing that goes into the image has changed"),
        "{said}"
    );

    // It fails, or leaves nothing.
    for (text, code) in [
        ("echo no luck; exit 7", "build_failed"),
        ("true", "no_image"),
    ] {
        let id = server.push_files(&with("v2", "", script(text)), "v2").await;
        let error = server.ended(&id).await.0.error.unwrap();
        assert_eq!(error.code, code, "{error:?}");
    }

    // Cancelled, with what it has started.
    let pid = server.stage.data_dir.join("pid");
    let text = format!(
        "sleep 600 & echo $! > {0}.new; mv {0}.new {0}; wait",
        pid.display()
    );
    let id = server
        .push_files(&with("v3", "", script(&text)), "v3")
        .await;
    assert!(soon(async || pid.exists()).await);
    let pid = std::fs::read_to_string(&pid).unwrap();
    let process = format!("/proc/{}", pid.trim());
    assert!(std::path::Path::new(&process).exists());
    assert!(server.cutover(&["cancel", &id]).status().unwrap().success());
    assert_eq!(server.ended(&id).await.0.state, "cancelled");
    let state = || std::fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
    // Nobody may have taken note of its end yet.
    let is_gone = soon(async || state().is_empty() || state().contains(") Z "));
    assert!(is_gone.await, "{}", state());
    // Those that an agent which is killed leaves end before the next one begins, whatever they are in.
    let pid = server.stage.data_dir.join("pid-of-killed");
    let text = format!(
        "setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600' & wait; sleep 600",
        pid.display()
    );
    let id = server
        .push_files(&with("v4", "", script(&text)), "v4")
        .await;
    assert!(soon(async || pid.exists()).await);
    server.agent().kill().await.unwrap();
    let left = std::fs::read_to_string(&pid).unwrap();
    let left = format!("/proc/{}/stat", left.trim());
    let state_of_left = || std::fs::read_to_string(&left).unwrap_or_default();
    assert!(!state_of_left().is_empty(), "it was ended too early");
    std::fs::remove_file(&pid).unwrap();
    server.serve().await;
    let is_gone = soon(async || state_of_left().is_empty() || state_of_left().contains(") Z "));
    assert!(is_gone.await, "{}", state_of_left());
    // It runs again, and a cancel ends them too.
    assert!(soon(async || pid.exists()).await);
    let again = std::fs::read_to_string(&pid).unwrap();
    let again = format!("/proc/{}/stat", again.trim());
    assert!(server.cutover(&["cancel", &id]).status().unwrap().success());
    assert_eq!(server.ended(&id).await.0.state, "cancelled");
    let state = || std::fs::read_to_string(&again).unwrap_or_default();
    let is_gone = soon(async || state().is_empty() || state().contains(") Z "));
    assert!(is_gone.await, "{}", state());
    let work = server.stage.data_dir.join("repos");
    let checkout = |folder: &std::path::Path| {
        let all = std::fs::read_dir(folder).into_iter().flatten().flatten();
        all.map(|it| it.path().join("work")).any(|it| it.exists())
    };
    assert!(soon(async || !checkout(&work)).await);
    assert_eq!(server.version().await, "v1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_may_make_the_files_of_a_site() {
    let settings = "kind = \"static\"\ndir = \"dist\"\ndomains = [\"hello.test\"]\n\
         [apps.hello.build]\ncommand = [\"sh\", \"-c\", \"mkdir -p dist/a && cp src/* dist/a && echo home > dist/index.html\"]\n\
         [apps.hello.health]\ninterval = \"50ms\"\n[apps.hello.deploy]\nbake = \"0s\"\n";
    let server = Server::with(settings).await;
    let id = server
        .push_files(&[File::new("src/b.txt", "made")], "one")
        .await;
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "live", "{log:#?}");
    assert_eq!(server.get("/").await.text(), "home\n");
    assert_eq!(server.get("/a/b.txt").await.text(), "made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_does_not_begin_without_room_and_what_is_live_stays() {
    let server = Server::start().await;
    server.go_live("v1").await;
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let text = text.replace("[docker]\n", "[docker]\nmin_free = \"900t\"\n");
    std::fs::write(&server.stage.config, text).unwrap();
    let reloaded = server.cutover(&["reload"]).output().unwrap();
    assert!(reloaded.status.success(), "{reloaded:?}");
    let id = server.push("v2", "").await;
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "failed", "{log:#?}");
    assert_eq!(deployment.error.unwrap().code, "no_space");
    assert_eq!(server.version().await, "v1");
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_made_of_what_other_apps_do_not_need_either() {
    let mut server = Server::idle(SETTINGS).await;
    let other = format!(
        "\n[apps.other]\nrepo = {:?}\nport = 8080\ndomains = ['other.test']\n\
         health = {{ path = '/health', interval = '50ms' }}\n\
         deploy = {{ bake = '0s', drain = '1s', keep_releases = 5 }}\n",
        server.stage.repo
    );
    let text = std::fs::read_to_string(&server.stage.config).unwrap() + &other;
    std::fs::write(&server.stage.config, &text).unwrap();
    server.serve().await;
    for version in ["v1", "v2", "v3"] {
        server.go_live(version).await;
        let deployed = server.cutover(&["deploy", "other", "--follow"]).output();
        let deployed = deployed.unwrap();
        assert!(deployed.status.success(), "{deployed:?}");
    }
    let kept = || {
        let db = rusqlite::Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
        let sql = "SELECT count(*) FROM releases WHERE app = 'other' AND removed_at IS NULL";
        db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(kept(), 3);
    let text = text.replace("keep_releases = 5", "keep_releases = 1");
    let text = text.replace("[docker]\n", "[docker]\nmin_free = \"900t\"\n");
    std::fs::write(&server.stage.config, text).unwrap();
    let reloaded = server.cutover(&["reload"]).output().unwrap();
    assert!(reloaded.status.success(), "{reloaded:?}");
    let id = server.push("v4", "").await;
    let error = server.ended(&id).await.0.error.unwrap();
    assert_eq!(error.code, "no_space");
    assert!(soon(async || kept() == 1).await, "{}", server.log());
    assert_eq!(server.version().await, "v3");
}
