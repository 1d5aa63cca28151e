//! The lines that a pipeline deploys with, as they stand in `examples/ci`.

use std::process::Command;

use crate::server::{APP, File, Server};

const SCRIPT: &str = include_str!("../../examples/ci/deploy.sh");

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_deploys_and_fails_with_the_deployment() {
    let mut server = Server::start().await;
    server.go_live("v1").await;
    let url = format!("http://{}", server.agent().address);
    let token = server.token();
    let folder = tempfile::tempdir().unwrap();
    let run = |commit: &str, run: &str| {
        let output = Command::new("sh")
            .args(["-c", SCRIPT])
            .current_dir(folder.path())
            .env("CUTOVER_URL", &url)
            .env("CUTOVER_TOKEN", &token)
            .env("APP", APP)
            .env("COMMIT", commit)
            .env("RUN", run)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), said)
    };
    let (good, said) = run("main", "1");
    assert!(good && said.ends_with("live\n"), "{said}");
    let broken = vec![File::new("Dockerfile", "FROM scratch\nCOPY not-there /\n")];
    let id = server.push_files(&broken, "Break it").await;
    server.ended(&id).await;
    let (good, said) = run("main", "2");
    assert!(!good && said.contains("not-there"), "{said}");
    // The job is started again.
    let (good, again) = run("main", "1");
    assert!(good && again.ends_with("live\n"), "{again}");
    let list = server
        .api(&format!("/api/v1/apps/{APP}/deployments?trigger=api"))
        .await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2, "{list}");
    server.stop().await;
}

#[test]
fn the_jobs_run_these_lines() {
    let lines = |text: &str| -> Vec<String> {
        let all = text.lines().map(|line| line.trim().to_owned());
        all.skip_while(|line| line != "set -eu").collect()
    };
    let script = lines(SCRIPT);
    assert!(script.len() > 3);
    for job in [
        include_str!("../../examples/ci/github.yml"),
        include_str!("../../examples/ci/gitlab.yml"),
    ] {
        assert_eq!(lines(job), script);
    }
}
