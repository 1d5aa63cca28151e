//! What people have complained of about tools of this kind, done to this one.

use crate::git::{commit, git, try_git, work_tree};
use crate::server::{APP, SETTINGS, Server};

/// The reason was in the container's output, which nobody showed once it did not get healthy.
#[tokio::test(flavor = "multi_thread")]
async fn what_never_gets_healthy_is_told_with_what_it_says() {
    let settings = SETTINGS.replace("deadline = \"15s\"", "deadline = \"2s\"");
    let mut server = Server::with(&settings).await;
    server.push("v1", "unhealthy").await;
    let deploy = server
        .cutover(&["deploy", APP, "--follow"])
        .output()
        .unwrap();
    assert!(!deploy.status.success(), "{deploy:?}");
    let said = [deploy.stdout, deploy.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.contains("health.path") && said.contains("  | "),
        "{said}"
    );
    server.stop().await;
}

/// A push that was forced, or of another branch, deployed nothing and said nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_forced_push_deploys_and_another_branch_is_told_which_one_does() {
    let mut server = Server::start().await;
    let Some((work, url)) = work_tree(&mut server) else {
        return;
    };
    let work = work.path();
    commit(work, "v1", "");
    git(work, &["push", "-q", &url, "main"]);
    std::fs::write(work.join("version"), "v1-amended").unwrap();
    git(work, &["commit", "-q", "--amend", "-am", "v1 amended"]);
    let (good, text) = try_git(work, &["push", "-f", &url, "main"]);
    assert!(good && text.contains("is live"), "{text}\n{}", server.log());
    assert_eq!(server.version().await, "v1-amended");

    git(work, &["checkout", "-q", "-b", "next"]);
    commit(work, "v2", "");
    let (good, text) = try_git(work, &["push", &url, "next"]);
    assert!(!good && text.contains("main"), "{text}");
    // As the answer to it says everywhere: under the name of the branch that is deployed.
    let (good, text) = try_git(work, &["push", "-f", &url, "next:main"]);
    assert!(good && text.contains("is live"), "{text}");
    assert_eq!(server.version().await, "v2");
    server.stop().await;
}

/// Who pushed waited in silence for a start that nobody had thought of.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_a_stopped_app_is_told_so_and_does_not_wait() {
    let mut server = Server::start().await;
    let Some((work, url)) = work_tree(&mut server) else {
        return;
    };
    let work = work.path();
    commit(work, "v1", "");
    git(work, &["push", "-q", &url, "main"]);
    let stop = server.cutover(&["stop", APP]).status().unwrap();
    assert!(stop.success());
    commit(work, "v2", "");
    let (good, text) = try_git(work, &["push", &url, "main"]);
    assert!(good && text.contains("cutover start hello"), "{text}");
    let newest = format!("/api/v1/apps/{APP}/deployments?limit=1");
    let id = server.api(&newest).await["items"][0]["id"].clone();
    let id = id.as_str().unwrap();
    server.until_log(id, "cutover start hello").await;
    let start = server.cutover(&["start", APP]).status().unwrap();
    assert!(start.success());
    assert_eq!(server.ended(id).await.0.state, "live");
    assert_eq!(server.version().await, "v2");
    server.stop().await;
}
