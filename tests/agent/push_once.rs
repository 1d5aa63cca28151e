//! Every push is counted once: redelivered, sent by two webhooks, replayed, or moved back and forth.

use crate::server::{APP, SETTINGS, Server, files};
use crate::support::demo::{forge, http};
use ::http::Request;
use serde_json::{Value, json};

/// Delivers under an id of the forge; gives the answer.
async fn deliver(server: &Server, payload: &Value, id: &str) -> Value {
    let body = payload.to_string();
    let request = Request::post(format!("/hooks/{APP}"))
        .header("content-type", "application/json")
        .header("x-github-event", "push")
        .header("x-github-delivery", id)
        .header(
            "x-hub-signature-256",
            forge::signature(&server.stage.secret, body.as_bytes()),
        );
    let answer = server.ask(request, body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()
}

/// The state that a delivery's deployment came to, and its error's code.
async fn ended(server: &Server, answer: &Value) -> (String, String) {
    let id = answer["deployment"].as_str().expect("a deployment");
    let (deployment, _) = server.ended(id).await;
    let code = deployment.error.map(|error| error.code).unwrap_or_default();
    (deployment.state, code)
}

/// Commits to main; gives its push as a forge that stamps it would send it.
fn commit(server: &Server, version: &str) -> Value {
    let made = server.stage.commit("main", &files(version, ""), version);
    let (old, new) = made.unwrap();
    push(&old, &new, 1)
}

fn push(old: &str, new: &str, pushed_at: u64) -> Value {
    let mut payload = forge::payload("refs/heads/main", old, new, "x");
    payload["repository"]["pushed_at"] = json!(pushed_at);
    payload
}

/// `git push --force` of `to`.
fn force(server: &Server, to: &Value) {
    let git = git2::Repository::open(&server.stage.repo).unwrap();
    let id = git2::Oid::from_str(to.as_str().unwrap()).unwrap();
    let mut main = git.find_reference("refs/heads/main").unwrap();
    main.set_target(id, "forced").unwrap();
}

async fn count(server: &Server) -> usize {
    let list = server.api(&format!("/api/v1/apps/{APP}/deployments")).await;
    list["items"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_deployed_once_however_it_is_delivered() {
    let mut server = Server::with(SETTINGS).await;
    let a = commit(&server, "a");
    let first = deliver(&server, &a, "id-a").await;
    // The same webhook again, a second one whose body differs, a replay under another id.
    let mut other = a.clone();
    other["installation"] = json!({ "id": 7 });
    for (payload, id) in [(&a, "id-a"), (&other, "id-b"), (&a, "forged")] {
        let again = deliver(&server, payload, id).await;
        assert_eq!(again["deployment"], first["deployment"], "{again}");
        assert!(again["reason"].is_string(), "{again}");
    }
    assert_eq!(ended(&server, &first).await.0, "live");

    // A known id with another push behind it swallows nothing.
    let b = commit(&server, "b");
    let second = deliver(&server, &b, "id-a").await;
    assert_eq!(ended(&server, &second).await.0, "live");
    assert_eq!(server.version().await, "b");

    // Much later, after a restart: the first one's answer, and nothing happens.
    server.stop().await;
    server.serve().await;
    for (payload, id) in [(&a, "id-a"), (&a, "forged again")] {
        let late = deliver(&server, payload, id).await;
        assert_eq!(late["deployment"], first["deployment"], "{late}");
    }
    assert_eq!(count(&server).await, 2);
    // The second webhook's late body: the branch is asked, which is live.
    let mut late = other.clone();
    late["installation"] = json!({ "id": 8 });
    let late = deliver(&server, &late, "id-c").await;
    let (state, code) = ended(&server, &late).await;
    // A newer push has taken its place.
    assert_eq!(
        (state.as_str(), code.as_str()),
        ("superseded", "already_live")
    );
    assert_eq!(server.version().await, "b");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_moved_back_goes_back_each_time() {
    let mut server = Server::with(SETTINGS).await;
    let to_a = commit(&server, "a");
    let first = deliver(&server, &to_a, "1").await;
    assert_eq!(ended(&server, &first).await.0, "live");
    let to_b = commit(&server, "b");
    let second = deliver(&server, &to_b, "2").await;
    assert_eq!(ended(&server, &second).await.0, "live");

    let (a, b) = (to_a["after"].clone(), to_b["after"].clone());
    let (old, new) = (a.as_str().unwrap(), b.as_str().unwrap());
    force(&server, &a);
    let back = deliver(&server, &push(new, old, 2), "3").await;
    assert_eq!(ended(&server, &back).await.0, "live");
    assert_eq!(server.version().await, "a");

    // A replay of the push to b, at the one moment at which it could be a new one, has the branch
    // read: it is at a, which is live.
    let replayed = deliver(&server, &to_b, "forged").await;
    assert_eq!(ended(&server, &replayed).await.1, "already_live");
    assert_eq!(server.version().await, "a");
    // And then it really goes there again.
    force(&server, &b);
    let again = deliver(&server, &push(old, new, 3), "4").await;
    assert_eq!(ended(&server, &again).await.0, "live");
    assert_eq!(server.version().await, "b");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_that_share_a_repository_have_an_address_and_a_secret_each() {
    let mut server = Server::idle(SETTINGS).await;
    let other = format!(
        "\n[apps.other]\nrepo = {:?}\nport = 8080\ndomains = ['other.test']\n\
         webhook.secrets = [{{ file = 'other.secret' }}]\n\
         health = {{ path = '/health', interval = '50ms' }}\ndeploy.bake = '0s'\n",
        server.stage.repo
    );
    let config = std::fs::read_to_string(&server.stage.config).unwrap() + &other;
    std::fs::write(&server.stage.config, config).unwrap();
    std::fs::write(server.stage.folder.join("other.secret"), "another secret").unwrap();
    server.serve().await;
    let (address, own) = (server.agent().address, server.stage.secret.clone());
    let push = commit(&server, "v1");
    let mut deployments = Vec::new();
    for (app, secret, status) in [
        (APP, "another secret", 401),
        ("other", own.as_str(), 401),
        (APP, own.as_str(), 202),
        ("other", "another secret", 202),
        // The same delivery twice is one for each.
        ("other", "another secret", 202),
    ] {
        let answer = forge::deliver(address, app, secret, "push", &push).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, status, "{app}: {}", answer.text());
        if status == 202 {
            deployments.push(answer.json()["deployment"].as_str().unwrap().to_owned());
        }
    }
    assert_ne!(deployments[0], deployments[1]);
    assert_eq!(deployments[1], deployments[2]);
    for (id, app) in deployments.iter().zip([APP, "other"]) {
        let (deployment, log) = server.ended(id).await;
        assert_eq!(
            (deployment.app.as_str(), deployment.state.as_str()),
            (app, "live"),
            "{log:#?}"
        );
    }
    let answer = http::get(server.agent().proxy, "other.test", "/")
        .await
        .unwrap();
    assert_eq!(answer.headers["x-version"], "v1");
    server.stop().await;
}
