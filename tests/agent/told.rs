//! What people are told on the command line, with wrong input above all.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use http::Request;

use crate::server::{APP, CUTOVER, SETTINGS, Server};
use crate::support::tool;
use crate::support::wait::soon;

/// Exit code and output of a verb.
fn run(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let output = server.cutover(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_use_is_exit_code_2_and_says_what_was_probably_meant() {
    let mut server = Server::start().await;
    for verb in ["deployments", "releases"] {
        let (code, said) = run(&server, &[verb, APP]);
        assert!(
            code == Some(0) && said.contains("`hello` has no "),
            "{said}"
        );
    }
    let live = server.go_live("v1").await;
    for verb in [
        "deploy",
        "rollback",
        "status",
        "deployments",
        "releases",
        "logs",
    ] {
        let (code, said) = run(&server, &[verb, "helo"]);
        assert_eq!(code, Some(2), "{verb}: {said}");
        assert!(said.contains("did you mean `hello`?"), "{verb}: {said}");
        assert!(
            !said.contains("[apps.NAME]") && !said.contains("/api/"),
            "{said}"
        );
    }
    let (code, said) = run(&server, &["status", "billing"]);
    assert!(
        code == Some(2) && said.contains("`cutover status`"),
        "{said}"
    );

    let digits = &live.commit.as_deref().unwrap()[..4];
    for (named, hint) in [
        ("mian", "(did you mean `main`?)"),
        (digits, "at least 7 digits"),
    ] {
        let (code, said) = run(&server, &["deploy", APP, "--follow", "--ref", named]);
        assert!(code == Some(1) && said.contains(hint), "{said}");
    }

    // What has ended cannot be cancelled.
    let (code, said) = run(&server, &["cancel", &live.id]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("no longer be cancelled") && said.contains("cutover rollback hello"),
        "{said}"
    );
    let failed = server.push("v2", "exit-at-start").await;
    server.ended(&failed).await;
    let (code, said) = run(&server, &["cancel", &failed]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("has failed") && !said.contains("rollback"),
        "{said}"
    );
    let (code, _) = run(&server, &["cancel", "d00000000000000"]);
    assert_eq!(code, Some(2));

    // By its id, too.
    let (code, said) = run(&server, &["logs", &live.id]);
    assert!(
        code == Some(0) && said.contains("[switch] serving at http://hello.test/"),
        "{said}"
    );
    let (_, said) = run(&server, &["deployments", APP]);
    let current = said.lines().filter(|line| line.contains("(current)"));
    assert!(
        current.collect::<Vec<_>>()[0].starts_with(&live.id),
        "{said}"
    );

    let bearer = format!("Bearer {}", server.token());
    for body in ["[]", "[\"v1\"]", "\"v1\"", "1", "{"] {
        let path = format!("/api/v1/apps/{APP}/rollback");
        let request = Request::post(path).header("authorization", bearer.as_str());
        let answer = server.ask(request, body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    }
    // Without a signature it is refused, but found.
    for path in ["/hooks/hello", "/hooks/hello/"] {
        let answer = server.ask(Request::post(path), "{}").await;
        assert_eq!(answer.status, 401, "{path}: {}", answer.text());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_has_no_step_under_way() {
    let mut server = Server::start().await;
    let running = server.push("v1", "slow-start 60000").await;
    let probing = async || {
        let shown = server.api(&format!("/api/v1/deployments/{running}")).await;
        shown["state"] == "probing"
    };
    assert!(soon(probing).await, "{}", server.log());
    // Another waits behind it, and the status shows both.
    let (code, said) = run(&server, &["deploy", APP]);
    assert_eq!(code, Some(0), "{said}");
    let waiting = said.split('`').nth(1).unwrap();
    let (_, status) = run(&server, &["status"]);
    let lines: Vec<_> = status.lines().collect();
    assert!(
        lines[1].contains(&running) && lines[1].contains("probing"),
        "{status}"
    );
    assert!(
        lines[2].contains(waiting) && lines[2].contains("queued"),
        "{status}"
    );

    let (code, said) = run(&server, &["cancel", waiting]);
    assert!(code == Some(0) && said.contains("is cancelled"), "{said}");
    let (code, said) = run(&server, &["cancel", &running]);
    assert!(code == Some(0) && said.contains("cancelled"), "{said}");
    let (ended, _) = server.ended(&running).await;
    assert_eq!(ended.state, "cancelled");
    let last = ended.steps.last().unwrap();
    assert_eq!(
        (last.name.as_str(), last.state.as_str()),
        ("probe", "stopped")
    );
    assert!(last.ended_at.is_some());
    let (code, said) = run(&server, &["cancel", &running]);
    assert!(code == Some(0) && said.contains("already"), "{said}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_says_at_its_start_what_it_serves_and_what_is_missing() {
    const NAMES: [&str; 2] = ["CUTOVER_TEST_SET", "CUTOVER_TEST_MISSING"];
    let far = format!(
        "[apps.far]\nrepo = 'https://example.com/far.git'\nport = 80\ndomains = ['far.test']\n\
         [apps.far.webhook]\nsecrets = [{{ env = '{}' }}, {{ env = '{}' }}]\n",
        NAMES[0], NAMES[1]
    );
    let mut server = Server::idle(&format!("{SETTINGS}{far}")).await;
    server.set_env(NAMES[0], "secret");
    server.serve().await;
    let address = server.agent().address;
    let repo = server.stage.repo.display().to_string();
    let said = [
        format!("`hello` is served at http://hello.test/; push to `{repo}`"),
        format!("http://{address}/git/hello.git"),
        format!("webhook: http://{address}/hooks/far"),
        NAMES[1].to_owned(),
    ];
    let all = async || said.iter().all(|text| server.log().contains(text));
    assert!(soon(all).await, "{}", server.log());
    assert!(!server.log().contains(NAMES[0]), "{}", server.log());

    // The doctor asks for the agent's environment, not for its own.
    let (_, found) = run(&server, &["doctor"]);
    assert!(
        found.contains(NAMES[1]) && !found.contains(NAMES[0]),
        "{found}"
    );
    // The repository on this machine has no webhook, and need not.
    assert!(!found.contains("apps.hello.webhook"), "{found}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_runs_as_another_user_says_so() {
    if !rustix::process::geteuid().is_root() {
        tool::skip("it needs root");
        return;
    }
    let mut server = Server::start().await;
    let folder = &server.stage.folder;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.join("cutover");
    std::fs::copy(CUTOVER, &program).unwrap();
    let receive = |config: &std::path::Path| {
        let mut command = Command::new(&program);
        command
            .args(["receive", "--repo"])
            .arg(&server.stage.repo)
            .arg("--config")
            .arg(config)
            .current_dir("/")
            .env_remove("CUTOVER_URL")
            .stdin(Stdio::null())
            .uid(65_534)
            .gid(65_534);
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let closed = folder.join("closed.toml");
    std::fs::copy(&server.stage.config, &closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o600)).unwrap();
    for config in [&server.stage.config, &closed] {
        let said = receive(config);
        assert!(said.contains("ermission denied"), "{said}");
        assert!(said.contains("runs as user id 65534"), "{said}");
        assert!(!said.contains("cutover serve"), "{said}");
    }
    server.stop().await;
}
