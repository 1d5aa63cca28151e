//! deploy.toml changes while the agent runs: what differs is said, a reload applies it, and an app
//! that leaves the file or changes its name serves on. Removing one leaves nothing of it.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use crate::server::{APP, CUTOVER, HOST, SETTINGS, Server, files};
use crate::support::demo::http;
use crate::support::docker::docker;
use cutover::deploy::checkpoint::Checkpoint;

fn file(server: &Server) -> String {
    std::fs::read_to_string(&server.stage.config).unwrap()
}

fn write(server: &Server, text: &str) {
    std::fs::write(&server.stage.config, text).unwrap();
}

fn edit(server: &Server, from: &str, to: &str) {
    let text = file(server);
    assert!(text.contains(from), "{from} in {text}");
    write(server, &text.replace(from, to));
}

/// The file without the app of the stage.
fn without_app(server: &Server) -> String {
    let text = file(server);
    text[..text.find("[apps.").unwrap()].to_owned()
}

fn run(server: &Server, arguments: &[&str]) -> Output {
    server.cutover(arguments).output().unwrap()
}

/// What a verb that succeeds prints, on both streams.
fn said(server: &Server, arguments: &[&str]) -> String {
    let output = run(server, arguments);
    let text = both(&output);
    let log = server.log();
    assert!(output.status.success(), "{arguments:?}: {text}\n{log}");
    text
}

fn both(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

async fn deploy(server: &Server, app: &str, git_ref: &str) -> String {
    let path = format!("/api/v1/apps/{app}/deployments");
    let body = serde_json::json!({ "ref": git_ref });
    let answer = server.stage.client().post(&path, &body).await;
    let answer = answer.unwrap_or_else(|error| panic!("{error}\n{}", server.log()));
    answer["id"].as_str().unwrap().to_owned()
}

async fn live(server: &Server, id: &str) {
    let (ended, log) = server.ended(id).await;
    assert_eq!(ended.state, "live", "{log:#?}\n{}", server.log());
}

/// The status, and the version that a host is answered with.
async fn at(server: &mut Server, host: &str) -> (u16, String) {
    let proxy = server.agent().proxy;
    let answer = http::get(proxy, host, "/").await.unwrap();
    let version = answer.headers.get("x-version");
    let version = version.and_then(|value| value.to_str().ok());
    (answer.status.as_u16(), version.unwrap_or_default().into())
}

/// Everything in Docker that carries the label of this server.
async fn in_docker(server: &Server) -> Vec<String> {
    use bollard::query_parameters::{ListContainersOptionsBuilder, ListImagesOptionsBuilder};

    let label = format!("cutover.data-dir={}", server.stage.data_dir.display());
    let filters = std::collections::HashMap::from([("label", vec![label.as_str()])]);
    let docker = docker().await;
    let containers = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&filters)
        .build();
    let images = ListImagesOptionsBuilder::new().filters(&filters).build();
    let containers = docker.list_containers(Some(containers)).await.unwrap();
    let images = docker.list_images(Some(images)).await.unwrap();
    let containers = containers
        .into_iter()
        .flat_map(|it| it.names.unwrap_or_default());
    containers
        .chain(images.into_iter().flat_map(|it| it.repo_tags))
        .collect()
}

/// Another app of the stage's repository.
fn other_app(server: &Server, name: &str, host: &str) -> String {
    format!(
        "[apps.{name}]\nrepo = {:?}\nbranch = \"{name}\"\nport = 8080\ndomains = [\"{host}\"]\n\
         [apps.{name}.health]\npath = \"/health\"\ninterval = \"50ms\"\n\
         [apps.{name}.deploy]\nbake = \"0s\"\n",
        server.stage.repo
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn who_acts_is_told_where_the_file_differs_and_a_reload_applies_it() {
    let mut server = Server::with(SETTINGS).await;
    server.go_live("v1").await;
    assert!(!said(&server, &["status"]).contains("Note:"));

    // Only a comment: no difference.
    let original = file(&server);
    write(&server, &format!("# a comment\n{original}"));
    assert!(!said(&server, &["status"]).contains("Note:"));

    // Settings, a new app, and what takes a restart.
    let new = other_app(&server, "second", "second.test");
    let text = original.replace("listen = \"127.0.0.1:0\"", "listen = \"127.0.0.1:1\"");
    write(
        &server,
        &text.replace("port = 8080", "port = 8080\nbranches = [\"next\"]"),
    );
    write(
        &server,
        &(file(&server) + "[apps.hello.run.env]\nSECRET = \"hunter2\"\n" + &new),
    );
    for verb in [&["status"][..], &["doctor"], &["deploy", "hello"]] {
        let text = both(&run(&server, verb));
        let expected = "; the file now differs in `agent.listen`, `apps.hello.branches`, \
                        `apps.hello.run.env.SECRET` and 1 more: run `cutover reload`";
        assert!(text.contains(expected), "{verb:?}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    // Who follows a deployment, as `git push` does, reads it in the log.
    let id = deploy(&server, APP, "main").await;
    let (_, log) = server.ended(&id).await;
    let note = "note: the agent runs the `deploy.toml` of";
    assert!(log.iter().any(|line| line.starts_with(note)), "{log:?}");

    let text = said(&server, &["reload", "--dry-run"]);
    assert!(text.contains("`apps.second` added"), "{text}");
    assert!(text.contains("nothing was changed (dry run)"), "{text}");
    assert_eq!(run(&server, &["deploy", "second"]).status.code(), Some(2));

    let text = said(&server, &["reload"]);
    for line in [
        "`agent.listen` changed, at the next restart",
        "`apps.hello.branches` added",
        "`apps.hello.run.env.SECRET` added, from the next deployment on",
        "`apps.second` added",
        "`agent.listen`: restart `cutover serve` to apply",
        "Reloaded `",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let text = said(&server, &["status"]);
    assert!(
        text.contains("Note: `agent.listen` takes effect after"),
        "{text}"
    );
    let (_, _) = server
        .stage
        .commit("second", &files("s1", ""), "s1")
        .unwrap();
    live(&server, &deploy(&server, "second", "second").await).await;
    assert_eq!(at(&mut server, "second.test").await, (200, "s1".into()));
    assert_eq!(server.version().await, "v1");

    // All mistakes are shown, and nothing changes.
    let good = file(&server);
    write(
        &server,
        &(good.clone() + "bananas = 1\n[apps.third]\nport = \"x\"\n"),
    );
    let output = run(&server, &["reload"]);
    assert_eq!(output.status.code(), Some(2));
    for mistake in [
        "unknown key `bananas`",
        "`apps.third.repo` is missing",
        "`apps.third.port`",
    ] {
        assert!(
            both(&output).contains(mistake),
            "{mistake} in {}",
            both(&output)
        );
    }
    // Whoever acts still reaches the agent, also where the file is no TOML any more.
    for mistake in ["bananas = 1\n", "bananas = [\n"] {
        write(&server, &(good.clone() + mistake));
        let text = said(&server, &["status"]);
        assert!(
            text.contains("cannot be loaded: run `cutover check`"),
            "{text}"
        );
        assert_eq!(said(&server, &["token"]).trim(), server.token());
        said(&server, &["deploy", "hello", "--follow"]);
    }
    // So with a file that is gone, and with a folder in its place. Where the agent is, another file
    // says, as `--url` would.
    let copy = server.stage.folder.join("copy.toml");
    std::fs::write(&copy, &good).unwrap();
    let elsewhere = |verb: &str| {
        let mut command = std::process::Command::new(CUTOVER);
        let output = command.arg("--config").arg(&copy).arg(verb).output();
        output.unwrap()
    };
    let text = both(&elsewhere("status"));
    assert!(
        text.contains("cannot be loaded: run `cutover check`"),
        "{text}"
    );
    std::fs::remove_file(&server.stage.config).unwrap();
    for expected in ["does not exist", "this is a folder"] {
        let output = elsewhere("reload");
        assert_eq!(output.status.code(), Some(2));
        assert!(both(&output).contains(expected), "{}", both(&output));
        let _ = std::fs::create_dir(&server.stage.config);
    }
    std::fs::remove_dir(&server.stage.config).unwrap();
    assert_eq!(at(&mut server, "second.test").await, (200, "s1".into()));

    // Two apps that swap their hosts do so at once.
    let swapped = good
        .replace(HOST, "third.test")
        .replace("second.test", HOST);
    write(&server, &swapped.replace("third.test", "second.test"));
    said(&server, &["reload"]);
    assert_eq!(at(&mut server, HOST).await.1, "s1");
    assert_eq!(at(&mut server, "second.test").await.1, "v1");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_leaves_the_file_serves_on_until_it_is_removed() {
    let mut server = Server::with(SETTINGS).await;
    server.go_live("v1").await;
    let load = server.load();
    load.until_more(20).await;
    let probing = server.push("v2", "slow-start 60000").await;
    server.until_log(&probing, "[probe] not healthy yet").await;
    let waiting = deploy(&server, APP, "main").await;

    let with_app = file(&server);
    write(&server, &without_app(&server));
    let text = said(&server, &["reload"]);
    let lost = "`hello` is no longer in deploy.toml but keeps serving: run `cutover remove hello` to remove it";
    assert!(text.contains(lost), "{text}");
    for id in [&probing, &waiting] {
        let (ended, log) = server.ended(id).await;
        assert!(
            ["cancelled", "superseded"].contains(&&*ended.state),
            "{ended:?} {log:?}"
        );
    }
    let (ended, _) = server.ended(&waiting).await;
    assert_eq!(ended.error.unwrap().code, "app_not_configured");
    for verb in [&["status"][..], &["doctor"]] {
        let text = both(&run(&server, verb));
        assert!(text.contains(lost), "{verb:?}: {text}");
    }
    let output = run(&server, &["deploy", "hello"]);
    assert!(
        both(&output).contains("is no longer in deploy.toml"),
        "{}",
        both(&output)
    );
    let answer = server.ask(::http::Request::post("/hooks/hello"), "").await;
    assert_eq!(answer.status, 404);
    load.until_more(20).await;
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{report}\n{}", server.log());

    // Both processes start anew, and it serves.
    server.stop().await;
    server.serve().await;
    assert_eq!(server.version().await, "v1");

    // Not without a yes; then nothing of it is left, its history but for.
    let output = run(&server, &["remove", "hello"]);
    assert_eq!(output.status.code(), Some(2), "{}", both(&output));
    assert!(
        both(&output).contains("remove container `cutover-hello-"),
        "{}",
        both(&output)
    );
    assert_eq!(server.version().await, "v1");
    let text = said(&server, &["remove", "hello", "--yes"]);
    assert!(text.contains("Removed `hello`"), "{text}");
    assert_eq!(at(&mut server, HOST).await.0, 404);
    assert_eq!(in_docker(&server).await, [""; 0]);
    assert!(said(&server, &["deployments", "hello"]).contains(&waiting));
    let status = said(&server, &["status"]);
    assert!(status.contains("There are no apps"), "{status}");
    let output = run(&server, &["remove", "unknown", "--yes"]);
    assert_eq!(output.status.code(), Some(2));

    // Back in the file, it begins anew; removed meanwhile, it comes back.
    write(&server, &with_app);
    said(&server, &["reload"]);
    server.go_live("v3").await;
    let building = server.push("v4", "slow-start 60000").await;
    server.until_log(&building, "[probe] not healthy yet").await;
    let text = said(&server, &["remove", "hello", "--yes"]);
    assert!(text.contains("still in deploy.toml"), "{text}");
    let (ended, _) = server.ended(&building).await;
    assert_eq!(ended.error.unwrap().code, "app_removed");
    assert_eq!(at(&mut server, HOST).await.0, 503);
    assert_eq!(in_docker(&server).await, [""; 0]);
    server.go_live("v5").await;
    assert_eq!(server.version().await, "v5");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_app_keeps_its_releases_and_serves_without_a_gap() {
    let mut server = Server::with(SETTINGS).await;
    server.go_live("v1").await;
    server.go_live("v2").await;
    let load = server.load();
    load.until_more(20).await;
    edit(&server, "[apps.hello", "[apps.greeter");
    edit(
        &server,
        "[apps.greeter]\n",
        "[apps.greeter]\nwas = \"hello\"\n",
    );
    let text = said(&server, &["reload"]);
    assert!(text.contains("`hello` is now `greeter`"), "{text}");
    load.until_more(50).await;
    assert!(said(&server, &["releases", "greeter"]).lines().count() == 3);
    assert!(said(&server, &["deployments", "greeter"]).contains("live"));
    let answer = server.ask(::http::Request::post("/hooks/hello"), "").await;
    assert_eq!(answer.status, 404);
    assert!(
        answer.text().contains("has been renamed to `greeter`"),
        "{}",
        answer.text()
    );
    let (token, address) = (server.token(), server.agent().address);
    let mut command = std::process::Command::new("git");
    let url = format!("http://ann:{token}@{address}/git/hello.git");
    let output = command.args(["ls-remote", &url]).output().unwrap();
    let text = both(&output);
    assert!(text.contains("push to `/git/greeter.git`"), "{text}");

    said(&server, &["rollback", "greeter", "--follow"]);
    assert_eq!(server.version().await, "v1");
    server.stage.commit("main", &files("v3", ""), "v3").unwrap();
    live(&server, &deploy(&server, "greeter", "main").await).await;

    // Again, while the agent is down; and `was` may stay where it is.
    server.agent().kill().await.unwrap();
    edit(&server, "[apps.greeter", "[apps.third");
    edit(&server, "was = \"hello\"", "was = \"greeter\"");
    server.serve().await;
    said(&server, &["reload"]);
    assert!(!said(&server, &["status"]).contains("greeter"));
    said(&server, &["rollback", "third", "--follow"]);
    load.until_more(20).await;
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{report}\n{}", server.log());

    // Two names cannot be swapped at once.
    let text = file(&server) + &other_app(&server, "greeter", "g.test");
    write(&server, &text);
    let output = run(&server, &["reload"]);
    assert!(
        both(&output).contains("is an app of this file"),
        "{}",
        both(&output)
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_a_rename_and_a_removal_are_completed() {
    let mut server = Server::with(SETTINGS).await;
    server.go_live("v1").await;
    let load = server.load();
    let mut name = "hello".to_owned();
    for (checkpoint, next) in [
        (Checkpoint::Reloading, "one"),
        (Checkpoint::Reloaded, "two"),
    ] {
        kill_at(&mut server, checkpoint).await;
        let section = format!("[apps.{name}]\n");
        edit(&server, &format!("[apps.{name}"), &format!("[apps.{next}"));
        let text = file(&server);
        let text = text.replace(&format!("was = \"{name}\"\n"), "");
        let was = text
            .find("was = ")
            .map(|at| text[at..].lines().next().unwrap().to_owned());
        let text = was.map_or(text.clone(), |was| text.replace(&format!("{was}\n"), ""));
        let section = section.replace(&name, next);
        write(
            &server,
            &text.replace(&section, &format!("{section}was = \"{name}\"\n")),
        );
        assert!(!run(&server, &["reload"]).status.success());
        survives(&mut server, &checkpoint).await;
        assert_eq!(server.version().await, "v1");
        let releases = said(&server, &["releases", next]);
        assert!(releases.lines().count() == 2, "{checkpoint:?}: {releases}");
        name = next.to_owned();
    }
    load.until_more(20).await;
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{report}\n{}", server.log());

    for checkpoint in [
        Checkpoint::Removing,
        Checkpoint::TakenOff,
        Checkpoint::Removed,
    ] {
        kill_at(&mut server, checkpoint).await;
        assert!(!run(&server, &["remove", &name, "--yes"]).status.success());
        survives(&mut server, &checkpoint).await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while !server.log().contains("removed the app") {
            assert!(tokio::time::Instant::now() < deadline, "{}", server.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(in_docker(&server).await, [""; 0], "{checkpoint:?}");
        assert_eq!(at(&mut server, HOST).await.0, 503, "it is in the file");
        std::fs::write(&server.stage.log, "").unwrap();
        live(&server, &deploy(&server, &name, "main").await).await;
    }
    server.stop().await;
}

/// Starts the agent anew so that it kills itself there.
async fn kill_at(server: &mut Server, checkpoint: Checkpoint) {
    server.agent().kill().await.unwrap();
    server.set_env("CUTOVER_KILL_AT", &checkpoint.name());
    server.serve().await;
}

/// Waits until it has, and starts one that does not.
async fn survives(server: &mut Server, checkpoint: &Checkpoint) {
    let ended = tokio::time::timeout(Duration::from_secs(60), server.agent().ended()).await;
    assert!(
        ended.is_ok(),
        "{checkpoint:?} was not reached\n{}",
        server.log()
    );
    server.set_env("CUTOVER_KILL_AT", "");
    server.serve().await;
}

/// A reload lets what is under way go on with what it began with.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_disturbs_no_deployment() {
    let settings = SETTINGS.replace("bake = \"0s\"", "bake = \"3s\"");
    let mut server = Server::with(&settings).await;
    server.go_live("v1").await;
    let id = server.push("v2", "slow-start 2000").await;
    server.until_log(&id, "[probe] not healthy yet").await;
    edit(
        &server,
        "stop_grace = \"2s\"",
        "stop_grace = \"1s\"\nenv = { A = \"b\" }",
    );
    said(&server, &["reload"]);
    server.until_log(&id, "[switch]").await;
    edit(&server, "bake = \"3s\"", "bake = \"1s\"");
    said(&server, &["reload"]);
    let (ended, log) = server.ended(&id).await;
    assert_eq!(ended.state, "live", "{log:?}");
    assert_eq!(
        log.iter().filter(|line| line.contains("[fetch]")).count(),
        1,
        "{log:?}"
    );
    assert_eq!(server.version().await, "v2");
    assert!(Path::new(&server.stage.config).exists());
    server.stop().await;
}

/// Who sends a body where none is read means something that would not be done.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_where_none_is_expected_is_refused() {
    let mut server = Server::idle(SETTINGS).await;
    server.serve().await;
    let bearer = format!("Bearer {}", server.token());
    for path in [
        "reload",
        "secrets/rekey",
        "apps/hello/stop",
        "apps/hello/unpin",
    ] {
        for (body, is_refused) in [
            ("nonsense", true),
            ("[]", true),
            ("{\"dry_run\": true}", true),
            ("{}", false),
            ("", false),
        ] {
            let request = ::http::Request::post(format!("/api/v1/{path}"));
            let request = request.header("authorization", &bearer);
            let answer = server.ask(request, body).await;
            let text = answer.text();
            assert_eq!(answer.status == 400, is_refused, "{path} {body}: {text}");
        }
    }
    server.stop().await;
}
