//! `git push https://…/git/<app>.git`, from the push to the answer of the app.

use crate::git::{commit, git, try_git, work_tree};
use crate::server::{APP, SETTINGS, Server};
use crate::support::wait::soon;

#[tokio::test(flavor = "multi_thread")]
async fn a_push_over_http_goes_live_and_the_pusher_sees_it() {
    let mut server = Server::start().await;
    let Some((work, url)) = work_tree(&mut server) else {
        return;
    };
    let work = work.path();

    commit(work, "v1", "");
    let (good, text) = try_git(work, &["push", &url, "main"]);
    assert!(
        good && text.contains("remote: `hello` is live with `cutover/hello:"),
        "{text}\n{}",
        server.log()
    );
    assert_eq!(server.version().await, "v1");

    // The same content: nothing is built, but for who asks for it.
    git(work, &["commit", "-q", "--allow-empty", "-m", "empty"]);
    let (good, text) = try_git(work, &["push", &url, "main"]);
    assert!(good && text.contains("reusing the one"), "{text}");
    git(work, &["commit", "-q", "--allow-empty", "-m", "anew"]);
    let (good, text) = try_git(
        work,
        &[
            "push",
            "-o",
            "cutover.no-cache",
            "-o",
            "cutover.pull",
            &url,
            "main",
        ],
    );
    assert!(good && !text.contains("reusing the one"), "{text}");
    assert!(
        text.contains("remote: `hello` is live with `cutover/hello:"),
        "{text}"
    );

    // What fails is told, and changes nothing.
    std::fs::write(work.join("Dockerfile"), "FROM scratch\nCOPY missing /\n").unwrap();
    git(work, &["commit", "-q", "-am", "broken"]);
    let (_, text) = try_git(work, &["push", &url, "main"]);
    assert!(text.contains("remote: Error: deployment `"), "{text}");
    assert_eq!(server.version().await, "v1");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_git_took_is_deployed_though_the_agent_died() {
    let mut server = Server::idle(SETTINGS).await;
    server.set_env("CUTOVER_KILL_AT", "taken");
    server.serve().await;
    let Some((work, url)) = work_tree(&mut server) else {
        return;
    };
    let work = work.path();
    commit(work, "v1", "");
    let (_, text) = try_git(work, &["push", &url, "main"]);
    server.agent().ended().await.unwrap();
    assert!(
        !text.contains("remote: `hello` is live with `cutover/hello:"),
        "{text}"
    );

    // Started twice more: it is queued once.
    server.set_env("CUTOVER_KILL_AT", "");
    for _ in 0..2 {
        server.serve().await;
        let list = format!("/api/v1/apps/{APP}/deployments");
        let items = async || server.api(&list).await["items"].as_array().unwrap().clone();
        let queued = soon(async || !items().await.is_empty()).await;
        assert!(queued, "{}", server.log());
        let items = items().await;
        let (ended, log) = server.ended(items[0]["id"].as_str().unwrap()).await;
        assert_eq!(ended.state, "live", "{log:#?}");
        assert_eq!(items.len(), 1);
        assert_eq!(server.version().await, "v1");
        server.stop().await;
    }

    // What asks for being left alone is, and no restart changes that.
    server.serve().await;
    let address = server.agent().address;
    let token = server.token();
    let url = format!("http://ann:{token}@{address}/git/{APP}.git");
    commit(work, "v2\n\n[skip ci]", "");
    let (good, text) = try_git(work, &["push", &url, "main"]);
    assert!(
        good && text.contains("skipped: the head commit's message contains"),
        "{text}"
    );
    commit(work, "v3", "");
    let (good, text) = try_git(work, &["push", "-o", "cutover.skip", &url, "main"]);
    assert!(
        good && text.contains("skipped: ") && text.contains("cutover.skip"),
        "{text}"
    );
    server.stop().await;
    server.serve().await;
    assert_eq!(server.version().await, "v1");
    let list = server.api(&format!("/api/v1/apps/{APP}/deployments")).await;
    let states: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["state"])
        .collect();
    assert_eq!(states, ["skipped", "skipped", "live"], "{list:#}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_refs_each_is_named_and_the_own_branch_goes_live() {
    let mut server = Server::with(&format!("branches = ['*']\n{SETTINGS}")).await;
    let Some((work, url)) = work_tree(&mut server) else {
        return;
    };
    let work = work.path();
    commit(work, "v1", "");
    git(work, &["checkout", "-q", "-b", "feature"]);
    commit(work, "v2", "");
    let (good, text) = try_git(work, &["push", &url, "feature", "main"]);
    for line in [
        "remote: refs/heads/feature: not deployed: it was pushed together with the branch `main`, \
         which is deployed instead",
        "remote: refs/heads/main: deployment `d",
        "remote: `hello` is live with `cutover/hello:",
    ] {
        assert!(good && text.contains(line), "{text}\n{}", server.log());
    }
    assert_eq!(server.version().await, "v1");
    let list = server.api(&format!("/api/v1/apps/{APP}/deployments")).await;
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{list:#}");
    let by = &items[0]["requested_by"];
    let (kind, token, user) = (&by["kind"], &by["token"], &by["user"]);
    assert_eq!(
        (kind, token, user),
        (&"git-http".into(), &"admin".into(), &"ann".into())
    );
    let id = items[0]["id"].as_str().unwrap();
    let shown = server.cutover(&["show", id]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let by = "Requested by ann, git over HTTP with token `admin`";
    assert!(shown.contains(by), "{shown}");

    let list = server.api(&format!("/api/v1/apps/{APP}/pushes")).await;
    let refs = list["items"].as_array().unwrap();
    let became: Vec<_> = refs
        .iter()
        .map(|it| (it["ref"].as_str().unwrap(), it["deployment"].as_str()))
        .collect();
    assert!(became.contains(&("refs/heads/main", Some(id))), "{list:#}");
    assert!(became.contains(&("refs/heads/feature", None)), "{list:#}");
    assert!(
        refs.iter().all(|it| it["requested_by"]["user"] == "ann"),
        "{list:#}"
    );
    assert!(refs.iter().any(|it| it["reason"].is_string()), "{list:#}");
    server.stop().await;
}
