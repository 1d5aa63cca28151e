//! Which pushes go live: further branches and tags by pattern, and never a skipped one.

use crate::server::{APP, SETTINGS, Server, files};
use crate::support::demo::forge;
use serde_json::{Value, json};

const ZEROS: &str = "0000000000000000000000000000000000000000";

async fn deliver(server: &mut Server, payload: &Value) -> Value {
    let address = server.agent().address;
    let secret = server.stage.secret.clone();
    let answer = forge::deliver(address, APP, &secret, "push", payload).await;
    let answer = answer.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()
}

async fn live(server: &mut Server, payload: &Value) -> cutover::cli::client::view::Deployment {
    let answer = deliver(server, payload).await;
    let id = answer["deployment"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"));
    let (deployment, log) = server.ended(id).await;
    assert_eq!(deployment.state, "live", "{}", log.join("\n"));
    deployment
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_choose_further_branches_and_tags() {
    let settings = format!("branches = [\"release/*\"]\ntags = \"v*\"\n{SETTINGS}");
    let mut server = Server::with(&settings).await;
    server.go_live("one").await;

    // The pushed branch's own tip, not that of the app's branch.
    let made = server.stage.commit("release/1", &files("two", ""), "two");
    let (_, new) = made.unwrap();
    let payload = forge::payload("refs/heads/release/1", ZEROS, &new, "two");
    let deployment = live(&mut server, &payload).await;
    assert_eq!(deployment.commit.as_deref(), Some(new.as_str()));
    assert_eq!(server.version().await, "two");

    // An annotated tag, beside a branch of the same name that holds something else.
    let commit = |branch, version| {
        server
            .stage
            .commit(branch, &files(version, ""), version)
            .unwrap()
            .1
    };
    commit("v3", "decoy");
    let tagged = commit("next", "three");
    let tag = {
        let git = git2::Repository::open(&server.stage.repo).unwrap();
        let target = git
            .find_object(git2::Oid::from_str(&tagged).unwrap(), None)
            .unwrap();
        let who = git2::Signature::now("Ada", "ada@example.com").unwrap();
        git.tag("v3", &target, &who, "the third", false)
            .unwrap()
            .to_string()
    };
    let mut payload = forge::payload("refs/tags/v3", ZEROS, &tag, "three");
    payload["head_commit"]["id"] = json!(tagged);
    let deployment = live(&mut server, &payload).await;
    assert_eq!(deployment.commit.as_deref(), Some(tagged.as_str()));
    assert_eq!(server.version().await, "three");

    // What no pattern names is answered with the reason.
    for (git_ref, reason) in [
        ("refs/heads/v3", "a push to `v3`"),
        ("refs/tags/w1", "a tag, `w1`"),
    ] {
        let payload = forge::payload(git_ref, ZEROS, &tagged, "x");
        let answer = deliver(&mut server, &payload).await;
        assert_eq!(answer["deployment"], Value::Null, "{answer}");
        let said = answer["reason"].as_str().unwrap();
        assert!(said.contains(reason), "{said}");
    }
    // So is what asks to be skipped, which is on record as a deployment too.
    for (git_ref, message, mark) in [
        ("refs/heads/main", "x\n\n[skip ci]", "`[skip ci]`"),
        ("refs/heads/release/1", "[Skip Deploy] x", "`[skip deploy]`"),
    ] {
        let payload = forge::payload(git_ref, ZEROS, &tagged, message);
        let answer = deliver(&mut server, &payload).await;
        let said = answer["reason"].as_str().unwrap();
        assert!(said.contains(mark), "{said}");
        let id = answer["deployment"].as_str().unwrap();
        let (skipped, log) = server.ended(id).await;
        assert_eq!(skipped.state, "skipped");
        assert_eq!(skipped.error.unwrap().code, "skipped");
        assert!(log[0].contains(mark), "{log:#?}");
        let again = deliver(&mut server, &payload).await;
        assert_eq!(again["deployment"], answer["deployment"]);
        for list in [&["deployments", APP][..], &["status", APP]] {
            let output = server.cutover(list).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains("skipped") && text.contains(mark), "{text}");
        }
    }
    assert_eq!(server.version().await, "three");

    // A tag on such a commit is an explicit act.
    let made = server
        .stage
        .commit("next", &files("release", ""), "chore(release): 4 [skip ci]");
    let (_, released) = made.unwrap();
    let git = git2::Repository::open(&server.stage.repo).unwrap();
    let id = git2::Oid::from_str(&released).unwrap();
    git.reference("refs/tags/v4", id, false, "test").unwrap();
    let message = "chore(release): 4 [skip ci]";
    let payload = forge::payload("refs/tags/v4", ZEROS, &released, message);
    live(&mut server, &payload).await;
    assert_eq!(server.version().await, "release");
    assert_eq!(server.version().await, "release");

    // Where the delivery lacks the message, as some forges' do, the commit itself is asked.
    let made = server
        .stage
        .commit("release/1", &files("four", ""), "four\n\n[skip ci]");
    let mut payload = forge::payload("refs/heads/release/1", &new, &made.unwrap().1, "");
    payload["head_commit"] = Value::Null;
    let answer = deliver(&mut server, &payload).await;
    let id = answer["deployment"].as_str().unwrap();
    let (skipped, log) = server.ended(id).await;
    assert_eq!(skipped.state, "skipped", "{log:#?}");
    let error = skipped.error.unwrap();
    assert_eq!(error.code, "skipped");
    assert!(error.message.contains("`[skip ci]`"), "{}", error.message);
    assert_eq!(server.version().await, "release");
}
