//! `paths`: an app of a repository of several is deployed when something of its own changed, and no
//! change is ever lost between pushes that are not for it.

use crate::server::{APP, File, SETTINGS, Server, files};
use crate::support::demo::forge;
use cutover::cli::client::view::Deployment;

/// The sample app's files, and one that the app is not made of.
fn with_readme(version: &str, behaviour: &str, readme: &str) -> Vec<File> {
    let mut files = files(version, behaviour);
    files.push(File::new("docs/README.md", readme));
    files
}

async fn server() -> Server {
    let paths = "paths = ['Dockerfile', 'hello', 'version', 'behaviour']";
    Server::with(&format!("{paths}\ntags = 'v*'\n{SETTINGS}")).await
}

async fn ended(server: &Server, files: &[File], message: &str) -> Deployment {
    let id = server.push_files(files, message).await;
    server.ended(&id).await.0
}

/// Panics unless it ended because nothing of the app changed.
#[track_caller]
fn unchanged(deployment: &Deployment) {
    assert_eq!(deployment.state, "skipped", "{:?}", deployment.error);
    let error = deployment.error.as_ref().unwrap();
    assert_eq!(error.code, "paths_unchanged");
    assert!(
        error.message.contains("nothing under `paths`"),
        "{}",
        error.message
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_touches_the_paths_is_deployed_and_nothing_is_lost() {
    let mut server = server().await;
    // Nothing is live yet: whatever is pushed first goes live.
    let first = ended(&server, &with_readme("v1", "", "a"), "first").await;
    assert_eq!(first.state, "live", "{:?}\n{}", first.error, server.log());
    unchanged(&ended(&server, &with_readme("v1", "", "b"), "docs").await);
    assert_eq!(server.version().await, "v1");

    // A change that fails is not forgotten: the next push brings it again, whatever it is about.
    let broken = with_readme("v2", "exit-at-start", "b");
    assert_eq!(ended(&server, &broken, "breaks").await.state, "failed");
    let still = with_readme("v2", "exit-at-start", "c");
    assert_eq!(ended(&server, &still, "docs").await.state, "failed");

    // A change, and right behind it a push that is not for the app: it takes the change with it.
    let running = server.push_files(&broken, "docs again").await;
    // It has read the branch: the next ones are not its own.
    server.until_log(&running, "[fetch]").await;
    server.push_files(&with_readme("v3", "", "c"), "v3").await;
    let last = server.push_files(&with_readme("v3", "", "d"), "docs").await;
    server.ended(&running).await;
    let (last, log) = server.ended(&last).await;
    assert_eq!(last.state, "live", "{log:#?}");
    assert_eq!(server.version().await, "v3");

    // After a rollback too, what counts is the difference from what is live.
    let cutover = |arguments: &[&str]| {
        let output = server.cutover(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    cutover(&["rollback", APP, "--follow"]);
    assert_eq!(server.version().await, "v1");
    unchanged(&ended(&server, &with_readme("v1", "", "e"), "reverted").await);
    assert_eq!(server.version().await, "v1");
    let docs = ended(&server, &with_readme("v3", "", "e"), "docs").await;
    assert_eq!(docs.state, "live", "{:?}", docs.error);
    assert_eq!(server.version().await, "v3");
    // A person can always deploy.
    cutover(&["deploy", APP, "--follow"]);

    // Forced back: what is compared is the trees, not the history.
    let back = first.commit.unwrap();
    let (old, new) = force(&server, &back);
    let payload = forge::payload("refs/heads/main", &old, &new, "first");
    let forced = deliver(&mut server, &payload).await;
    assert_eq!(forced.state, "live", "{:?}", forced.error);
    assert_eq!(server.version().await, "v1");

    // Who pushes a tag means that commit.
    let (_, tagged) = server
        .stage
        .commit("main", &with_readme("v1", "", "f"), "tagged")
        .unwrap();
    let git = git2::Repository::open(&server.stage.repo).unwrap();
    let id = git2::Oid::from_str(&tagged).unwrap();
    git.reference("refs/tags/v1", id, false, "test").unwrap();
    let payload = forge::payload("refs/tags/v1", &"0".repeat(40), &tagged, "tagged");
    let tag = deliver(&mut server, &payload).await;
    assert_eq!(tag.state, "live", "{:?}", tag.error);

    // The same commit pushed to the branch has nothing left to do.
    let payload = forge::payload("refs/heads/main", &new, &tagged, "tagged");
    let again = deliver(&mut server, &payload).await;
    assert_eq!(again.state, "skipped", "{:?}", again.error);
    assert_eq!(again.error.unwrap().code, "already_live");
    server.stop().await;
}

/// Points the branch at `to`, as `git push --force` does; gives the old tip and the new.
fn force(server: &Server, to: &str) -> (String, String) {
    let git = git2::Repository::open(&server.stage.repo).unwrap();
    let mut main = git.find_reference("refs/heads/main").unwrap();
    let old = main.target().unwrap().to_string();
    let to_id = git2::Oid::from_str(to).unwrap();
    main.set_target(to_id, "forced").unwrap();
    (old, to.to_owned())
}

async fn deliver(server: &mut Server, payload: &serde_json::Value) -> Deployment {
    let (address, secret) = (server.agent().address, server.stage.secret.clone());
    let answer = forge::deliver(address, APP, &secret, "push", payload).await;
    let answer = answer.unwrap().json();
    let id = answer["deployment"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"));
    server.ended(id).await.0
}
