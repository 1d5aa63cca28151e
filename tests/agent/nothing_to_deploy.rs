//! Whoever comes with nothing that can be deployed changes nothing: not what bakes, not what runs, not
//! what waits.

use crate::server::{APP, SETTINGS, Server, files};
use crate::support::demo::forge;
use crate::support::wait::soon;
use cutover::cli::client::view::Deployment;
use serde_json::{Value, json};

const ZEROS: &str = "0000000000000000000000000000000000000000";

fn settings(deploy: &str) -> String {
    let settings = SETTINGS.replace("bake = \"0s\"", deploy);
    format!("branches = [\"*\"]\n{settings}")
}

async fn state(server: &Server, id: &str) -> String {
    let deployment = server.api(&format!("/api/v1/deployments/{id}")).await;
    deployment["state"].as_str().unwrap().to_owned()
}

/// A mistyped ref, and a signed delivery for a branch that does not exist, have failed.
async fn come_with_nothing(server: &mut Server) {
    let body = json!({ "ref": "mian" });
    let path = format!("/api/v1/apps/{APP}/deployments");
    let typo: Value = server.stage.client().post(&path, &body).await.unwrap();
    failed(server.ended(typo["id"].as_str().unwrap()).await);

    let (address, secret) = (server.agent().address, server.stage.secret.clone());
    let payload = forge::payload("refs/heads/nowhere", ZEROS, &"1".repeat(40), "x");
    let answer = forge::deliver(address, APP, &secret, "push", &payload).await;
    let answer = answer.unwrap().json();
    failed(server.ended(answer["deployment"].as_str().unwrap()).await);
}

#[track_caller]
fn failed((deployment, log): (Deployment, Vec<String>)) {
    assert_eq!(deployment.state, "failed", "{log:#?}");
    let error = deployment.error.unwrap();
    assert_eq!(error.code, "no_such_ref", "{error:?}");
    assert_eq!(error.step.as_deref(), Some("fetch"));
    assert!(
        log.iter().any(|line| line.starts_with("[fetch] failed")),
        "{log:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_just_went_live_bakes_on() {
    let mut server = Server::with(&settings("bake = \"60s\"")).await;
    let id = server.push("v1", "").await;
    server.until_log(&id, "[drain]").await;
    come_with_nothing(&mut server).await;
    assert_eq!(state(&server, &id).await, "baking");

    // Who comes with something ends the bake as before.
    let next = server.push("v2", "").await;
    let (first, log) = server.ended(&id).await;
    assert_eq!(first.state, "live");
    let ended = format!("[bake] ended early: `{next}` is waiting");
    assert!(log.contains(&ended), "{log:#?}");
    server.until_log(&next, "[drain]").await;
    assert_eq!(server.version().await, "v2");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_runs_on_and_what_waits_keeps_its_place() {
    let mut server = Server::with(&settings("bake = \"0s\"")).await;
    let running = server.push("v1", "slow-start 60000").await;
    server.until_log(&running, "[probe] not healthy yet").await;
    come_with_nothing(&mut server).await;
    assert_eq!(state(&server, &running).await, "probing");

    // A person's deployment is not stopped by a push, which waits behind it.
    let slow = server
        .stage
        .commit("by-hand", &files("v2", "slow-start 60000"), "v2");
    let body = json!({ "ref": slow.unwrap().1 });
    let path = format!("/api/v1/apps/{APP}/deployments");
    let by_hand: Value = server.stage.client().post(&path, &body).await.unwrap();
    let by_hand = by_hand["id"].as_str().unwrap();
    server.cutover(&["cancel", &running]).output().unwrap();
    server.until_log(by_hand, "[probe] not healthy yet").await;
    let waiting = server.push("v3", "").await;
    come_with_nothing(&mut server).await;
    assert_eq!(state(&server, &waiting).await, "queued");
    server.cutover(&["cancel", by_hand]).output().unwrap();
    let (waited, log) = server.ended(&waiting).await;
    assert_eq!(waited.state, "live", "{log:#?}");
    assert_eq!(server.version().await, "v3");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_while_another_ran_is_not_fetched_again_at_its_turn() {
    let mut server = Server::with(&settings("bake = \"0s\"")).await;
    let slow = (server.stage).commit("by-hand", &files("v1", "slow-start 3000"), "v1");
    let body = json!({ "ref": slow.unwrap().1 });
    let path = format!("/api/v1/apps/{APP}/deployments");
    let running: Value = server.stage.client().post(&path, &body).await.unwrap();
    let running = running["id"].as_str().unwrap();
    server.until_log(running, "[build]").await;
    let waiting = server.push("v2", "").await;
    let found = || {
        let db = rusqlite::Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
        let sql = "SELECT found FROM deployments WHERE id = ?1";
        db.query_row(sql, [&waiting], |row| row.get::<_, bool>(0))
            .unwrap()
    };
    assert!(soon(async || found()).await, "{}", server.log());
    assert_eq!(state(&server, &waiting).await, "queued");
    // Whoever makes this one tells of it himself.
    server.stage.commit("main", &files("v3", ""), "v3").unwrap();
    let (waited, log) = server.ended(&waiting).await;
    assert_eq!(waited.state, "live", "{log:#?}");
    assert_eq!(server.version().await, "v2", "{log:#?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_with_several_refs_names_each_and_what_became_of_it() {
    let mut server = Server::with(&settings("bake = \"0s\"")).await;
    server.go_live("v1").await;
    let (_, main) = server.stage.commit("main", &files("v2", ""), "v2").unwrap();
    let (_, docs) = server
        .stage
        .commit("docs", &files("v3", ""), "v3 [no ci]")
        .unwrap();
    let (_, next) = server.stage.commit("next", &files("v4", ""), "v4").unwrap();
    let change = |name: &str, hash: &str, message: &str| {
        json!({ "old": null, "new": { "type": "branch", "name": name,
            "target": { "hash": hash, "message": message } } })
    };
    let payload = json!({ "push": { "changes": [
        change("next", &next, "v4"), change("docs", &docs, "v3 [no ci]"),
        change("main", &main, "v2"),
        { "old": { "type": "branch", "name": "old", "target": { "hash": main } }, "new": null },
    ] }, "repository": { "full_name": "acme/hello" } });
    let body = serde_json::to_vec(&payload).unwrap();
    let signature = forge::signature(&server.stage.secret, &body);
    let request = http::Request::post(format!("/hooks/{APP}"))
        .header("x-event-key", "repo:push")
        .header("x-hook-uuid", "1")
        .header("content-type", "application/json")
        .header("x-hub-signature", signature);
    let answer = server.ask(request, body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let answer = answer.json();
    let of = |name: &str| {
        let refs = answer["refs"].as_array().unwrap();
        let git_ref = format!("refs/heads/{name}");
        refs.iter()
            .find(|it| it["ref"] == git_ref.as_str())
            .unwrap()
            .clone()
    };
    assert_eq!(of("main")["deployment"], answer["deployment"]);
    assert_eq!(of("main")["reason"], Value::Null);
    for (name, why) in [
        ("next", "together"),
        ("docs", "[no ci]"),
        ("old", "deleted"),
    ] {
        assert_eq!(of(name)["deployment"], Value::Null, "{answer}");
        assert!(
            of(name)["reason"].as_str().unwrap().contains(why),
            "{answer}"
        );
        assert!(answer["reason"].as_str().unwrap().contains(why), "{answer}");
        let logged = format!("refs/heads/{name}: ");
        assert!(server.log().contains(&logged), "{}", server.log());
    }
    let (deployed, log) = server.ended(answer["deployment"].as_str().unwrap()).await;
    assert_eq!(deployed.state, "live", "{log:#?}");
    assert_eq!(server.version().await, "v2");
    server.stop().await;
}
