//! What other people's tools say of the agent: Prometheus's promtool of `/metrics` and of the alert rules, and
//! schemathesis (<https://schemathesis.io>) of the API, which it tries out from its description.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::server::Server;
use crate::support::tool;

/// What these tools are kept in, outside of the checkout.
fn cache() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or("/tmp".into())).join(".cache");
    cache.unwrap_or_else(home).join("cutover")
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_has_nothing_to_say() {
    let kept = cache().join("promtool");
    let found = kept.is_file().then_some(kept);
    let Some(promtool) = found.or_else(|| tool::find("promtool", "prometheus")) else {
        return;
    };
    let mut server = Server::start().await;
    server.go_live("v1").await;
    server.get("/").await;
    let metrics = server.ask(http::Request::get("/metrics"), "").await.text();
    let mut check = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = check.stdin.take().unwrap();
    input.write_all(metrics.as_bytes()).await.unwrap();
    drop(input);
    let said = check.wait_with_output().await.unwrap();
    let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success() && text.is_empty(), "{text}");

    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/watch/alerts.yml");
    let (good, text) = tool::output(Command::new(&promtool).args(["check", "rules", rules])).await;
    assert!(good, "{text}");
    server.stop().await;
}

const SCHEMATHESIS: &str = "4.32.5";

/// From PyPI; `None` where Python is missing and may be.
async fn schemathesis() -> Option<PathBuf> {
    let folder = cache().join("schemathesis").join(SCHEMATHESIS);
    let program = folder.join("bin/schemathesis");
    if !program.is_file() {
        let python = tool::find("python3", "python3-venv")?;
        let venv = Command::new(python)
            .args(["-m", "venv"])
            .arg(&folder)
            .output();
        let made = venv.await.unwrap();
        assert!(made.status.success(), "{made:?}");
        let pip = Command::new(folder.join("bin/pip"))
            .args(["install", "-q", "--disable-pip-version-check"])
            .arg(format!("schemathesis=={SCHEMATHESIS}"))
            .output();
        let installed = pip.await.unwrap();
        assert!(installed.status.success(), "{installed:?}");
    }
    Some(program)
}

/// Neither 5xx, nor a status, a kind of content or a body that the description does not have.
#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_as_it_describes_itself() {
    let Some(program) = schemathesis().await else {
        return;
    };
    let mut server = Server::start().await;
    server.go_live("v1").await;
    server.go_live("v2").await;
    let folder = tempfile::tempdir().unwrap();
    // What follows a log ends with the log.
    let settings = "[parameters]\n\"query.follow\" = \"false\"\n";
    std::fs::write(folder.path().join("schemathesis.toml"), settings).unwrap();
    let site = format!("http://{}", server.agent().address);
    let run = Command::new(program)
        .current_dir(folder.path())
        .args(["run", &format!("{site}/api/v1/openapi.json")])
        .args(["-H", &format!("Authorization: Bearer {}", server.token())])
        .args(["--phases", "examples,coverage,fuzzing", "--max-time", "60"])
        .args([
            "--max-examples",
            "10",
            "--seed",
            "1",
            "--request-timeout",
            "20",
        ])
        .args(["--checks", "not_a_server_error,status_code_conformance"])
        .args([
            "--checks",
            "content_type_conformance,response_schema_conformance",
        ])
        // The others need the app.
        .args(["--exclude-operation-id", "removeApp"])
        .args(["--continue-on-failure", "--no-color", "--warnings", "off"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = run.await.unwrap();
    let text = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    assert!(ended.status.success(), "{text}\n{}", server.log());
    assert!(text.contains("passed"), "{text}");
    server.stop().await;
}
