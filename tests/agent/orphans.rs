//! What a lost database does not know any more: it is listed, removed only after a look, and what serves is
//! taken back into the record without a gap.

use std::fs;
use std::process::Output;

use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder,
};
use http::Request;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::server::{APP, File, HOST, Server, files};
use crate::support::docker::docker;
use crate::support::mix::Mix;
use crate::support::wait::soon;

/// Kills the agent and starts another one with an empty database.
async fn lose_database(server: &mut Server, more: &[&str]) {
    server.agent().kill().await.unwrap();
    let files = ["cutover.db", "cutover.db-wal", "cutover.db-shm"];
    for file in files.iter().chain(more) {
        let _ = fs::remove_file(server.stage.data_dir.join(file));
    }
    server.serve().await;
}

fn run(server: &Server, arguments: &[&str]) -> Output {
    server.cutover(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn database(server: &Server) -> Connection {
    Connection::open(server.stage.data_dir.join("cutover.db")).unwrap()
}

/// The name of the live container, as the record has it.
fn container(server: &Server) -> String {
    let sql = "SELECT i.name FROM instances i JOIN apps a ON a.live_release = i.release";
    database(server)
        .query_row(sql, [], |row| row.get(0))
        .unwrap()
}

async fn is_there(docker: &Docker, container: &str) -> bool {
    docker.inspect_container(container, None).await.is_ok()
}

/// What no record names, by kind and name.
async fn orphans(server: &Server) -> Vec<(String, String, Value)> {
    let list = server.api("/api/v1/orphans").await;
    let items = list["items"].as_array().unwrap().iter();
    let text = |item: &Value, key: &str| item[key].as_str().unwrap().to_owned();
    let item = |it: &Value| (text(it, "kind"), text(it, "name"), it.clone());
    items.map(item).collect()
}

async fn roll_back(server: &Server) {
    let back = run(server, &["rollback", APP, "--follow"]);
    assert!(back.status.success(), "{}\n{}", said(&back), server.log());
}

/// With `more` files lost besides the database.
async fn what_serves_is_adopted(more: &[&str]) {
    let docker = docker().await;
    let mut server = Server::start().await;
    let first = server.go_live("1").await;
    let live = container(&server);
    let id = docker.inspect_container(&live, None).await.unwrap().id;
    let load = Mix::start(server.agent().proxy, HOST);
    load.until_more().await;
    lose_database(&mut server, more).await;

    let doctor = run(&server, &["doctor"]);
    assert_eq!(doctor.status.code(), Some(1), "{}", said(&doctor));
    // By which of its names the image is listed depends on the other agents of this engine.
    for text in [&live, "`cutover adopt`", "image `cutover/hello:"] {
        assert!(said(&doctor).contains(text), "{text}: {}", said(&doctor));
    }
    // Nothing that serves is removed.
    let gc = run(&server, &["gc", "--yes"]);
    assert!(
        said(&gc).contains(&format!("keep container `{live}`")),
        "{}",
        said(&gc)
    );
    assert!(is_there(&docker, &live).await);

    let adopted = run(&server, &["adopt"]);
    assert!(
        adopted.status.success(),
        "{}\n{}",
        said(&adopted),
        server.log()
    );
    assert!(said(&adopted).contains(&live), "{}", said(&adopted));
    assert_eq!(container(&server), live);
    let status = server.api(&format!("/api/v1/apps/{APP}")).await;
    assert_eq!(
        status["release"]["commit"],
        first.commit.as_deref().unwrap()
    );
    assert_eq!(status["release"]["message"], "1");
    assert_eq!(status["instances"]["wanted"], 1);
    assert_eq!(status["instances"]["serving"], 1);
    load.until_more().await;
    assert_eq!(orphans_of(&server, "container").await, [""; 0]);
    let again = run(&server, &["adopt", APP]);
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));

    // It survives another start, and is drained as any other.
    server.agent().kill().await.unwrap();
    server.serve().await;
    load.until_more().await;
    let found = docker.inspect_container(&live, None).await.unwrap();
    assert_eq!(found.id, id, "the same container");
    let second = server.go_live("2").await;
    load.switched_to(2);
    load.until_more().await;
    assert_eq!(second.receipt.unwrap().failed, 0);
    let gone = soon(async || !is_there(&docker, &live).await);
    assert!(gone.await, "{}", server.log());
    load.stop().await.assert_whole();
    roll_back(&server).await;
    assert_eq!(server.version().await, "1");
    server.stop().await;
}

async fn orphans_of(server: &Server, kind: &str) -> Vec<String> {
    let all = orphans(server).await.into_iter();
    let of_kind = all.filter(|(of, _, _)| of == kind);
    of_kind.map(|(_, name, _)| name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_serves_is_adopted_after_the_database_is_lost() {
    what_serves_is_adopted(&[]).await;
}

/// The network has another name then.
#[tokio::test(flavor = "multi_thread")]
async fn what_serves_is_adopted_after_the_agent_s_id_is_lost_too() {
    what_serves_is_adopted(&["agent.id"]).await;
}

/// What Docker was told to keep running is what was live.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_route_table_what_is_kept_running_is_adopted() {
    let mut server = Server::start().await;
    server.go_live("1").await;
    let live = container(&server);
    server.stop().await;
    for file in [
        "cutover.db",
        "cutover.db-wal",
        "cutover.db-shm",
        "routes.json",
        "agent.id",
    ] {
        let _ = fs::remove_file(server.stage.data_dir.join(file));
    }
    server.serve().await;
    assert_eq!(server.get("/").await.status, 503);
    let adopted = run(&server, &["adopt", APP]);
    assert!(
        adopted.status.success(),
        "{}\n{}",
        said(&adopted),
        server.log()
    );
    assert_eq!(server.version().await, "1", "{}", server.log());
    assert_eq!(container(&server), live);
    server.stop().await;
}

/// The sample app with a volume.
fn with_volume(version: &str) -> Vec<File> {
    let mut files = files(version, "");
    let is_dockerfile = |file: &&mut File| file.path == "Dockerfile";
    let dockerfile = files.iter_mut().find(is_dockerfile).unwrap();
    dockerfile.bytes.extend(b"\nVOLUME /data\n");
    files
}

async fn run_by_hand(docker: &Docker, image: &str) -> String {
    let name = format!("by-hand-{}", std::process::id());
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        ..Default::default()
    };
    docker.create_container(Some(options), body).await.unwrap();
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_is_removed_after_a_look_and_nothing_else() {
    let docker = docker().await;
    let mut server = Server::start().await;
    let id = server.push_files(&with_volume("1"), "1").await;
    let (first, log) = server.ended(&id).await;
    assert_eq!(first.state, "live", "{log:#?}");
    let (left, image) = (container(&server), first.image.unwrap());
    let found = docker.inspect_container(&left, None).await.unwrap();
    let volume = found.mounts.unwrap().remove(0).name.unwrap();
    lose_database(&mut server, &["agent.id"]).await;
    server.go_live("2").await;
    let live = container(&server);
    let mine = run_by_hand(&docker, &image).await;

    let plan = run(&server, &["gc", "--dry-run"]);
    assert!(plan.status.success());
    for text in [&left, &image, &volume] {
        assert!(said(&plan).contains(text), "{text}: {}", said(&plan));
    }
    for text in [&live, &mine] {
        assert!(!said(&plan).contains(text), "{text}: {}", said(&plan));
    }
    assert_eq!(
        run(&server, &["gc"]).status.code(),
        Some(2),
        "nobody says yes"
    );
    assert!(is_there(&docker, &left).await, "a look changes nothing");

    // By id, and only what is in the list at that moment.
    let ask = async |kind: &str, id: &str| {
        let request = Request::post("/api/v1/gc")
            .header("authorization", format!("Bearer {}", server.token()));
        let body = json!({ "items": [{ "kind": kind, "id": id }] });
        let answer = server.ask(request, body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    for name in [&live, &mine, &left] {
        let id = docker
            .inspect_container(name, None)
            .await
            .unwrap()
            .id
            .unwrap();
        let by_name = ask("container", name).await;
        assert_eq!(by_name["removed"], json!([]), "{by_name}");
        if name != &left {
            let by_id = ask("container", &id).await;
            assert_eq!(by_id["removed"], json!([]), "{by_id}");
        }
        assert!(is_there(&docker, name).await);
    }

    // Somebody's container uses the image, which stays.
    let gc = run(&server, &["gc", "--yes"]);
    assert_eq!(gc.status.code(), Some(1), "{}", said(&gc));
    assert!(!is_there(&docker, &left).await, "{}", said(&gc));
    assert!(is_there(&docker, &mine).await && is_there(&docker, &live).await);
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    docker.remove_container(&mine, Some(options)).await.unwrap();
    let gc = run(&server, &["gc", "--yes"]);
    assert!(gc.status.success(), "{}\n{}", said(&gc), server.log());
    assert_eq!(orphans_of(&server, "image").await, [""; 0]);
    assert_eq!(orphans_of(&server, "network").await, [""; 0]);

    // Data goes only if that is said.
    assert_eq!(orphans_of(&server, "volume").await, [volume.as_str()]);
    assert!(docker.inspect_volume(&volume).await.is_ok());
    let gc = run(&server, &["gc", "--yes", "--volumes"]);
    assert!(gc.status.success(), "{}\n{}", said(&gc), server.log());
    assert!(docker.inspect_volume(&volume).await.is_err());
    assert_eq!(orphans(&server).await, []);
    assert_eq!(server.version().await, "2");

    let sql = "SELECT requested_by FROM actions WHERE action = 'gc' ORDER BY id DESC LIMIT 1";
    let by: String = database(&server)
        .query_row(sql, [], |row| row.get(0))
        .unwrap();
    assert!(by.contains("\"kind\":\"local\""), "{by}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_somebody_renamed_does_not_run_on_unseen() {
    let docker = docker().await;
    let mut server = Server::start().await;
    server.go_live("1").await;
    let name = format!("renamed-{}", std::process::id());
    let options = RenameContainerOptionsBuilder::new().name(&name).build();
    let live = container(&server);
    docker.rename_container(&live, options).await.unwrap();
    let seen = soon(async || orphans_of(&server, "container").await.contains(&name)).await;
    assert!(seen, "{:?}\n{}", orphans(&server).await, server.log());
    server.go_live("2").await;
    let live = container(&server);
    let gc = run(&server, &["gc", "--yes"]);
    assert!(gc.status.success(), "{}\n{}", said(&gc), server.log());
    assert!(!is_there(&docker, &name).await, "{}", said(&gc));
    assert!(is_there(&docker, &live).await);
    assert_eq!(server.version().await, "2");
    server.stop().await;
}
