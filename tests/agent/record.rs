//! What the record says beside what is there: an image that somebody removed, a replica that is missing, a
//! volume whose container is gone, another engine, a copy of the database from the middle of a deployment.

use std::collections::HashMap;
use std::fs;

use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListImagesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder,
};
use http::Request;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::server::{APP, File, HOST, SETTINGS, Server, files};
use crate::support::docker::docker;
use crate::support::mix::Mix;
use crate::support::wait::soon;

fn database(server: &Server) -> Connection {
    Connection::open(server.stage.data_dir.join("cutover.db")).unwrap()
}

/// The names of the live containers, as the record has them.
fn containers(server: &Server) -> Vec<String> {
    let db = database(server);
    let sql = "SELECT i.name FROM instances i JOIN apps a ON a.live_release = i.release ORDER BY 1";
    let mut query = db.prepare(sql).unwrap();
    let rows = query.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

fn said(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let output = server.cutover(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code(), text)
}

async fn remove(docker: &Docker, container: &str) {
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    match docker.remove_container(container, Some(options)).await {
        Err(error) if error.to_string().contains("No such container") => {}
        removed => removed.unwrap(),
    }
}

/// The names of the images that this agent keeps.
async fn images(docker: &Docker, server: &Server) -> Vec<Vec<String>> {
    let label = format!("cutover.image.data-dir={}", server.stage.data_dir.display());
    let filters = HashMap::from([("label", vec![label])]);
    let options = ListImagesOptionsBuilder::new().filters(&filters).build();
    let found = docker.list_images(Some(options)).await.unwrap();
    found.into_iter().map(|it| it.repo_tags).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_somebody_removed_is_gone_and_can_be_built_again() {
    let docker = docker().await;
    let mut server = Server::start().await;
    let first = server.go_live("v1").await;
    server.go_live("v2").await;
    let list = server.api(&format!("/api/v1/apps/{APP}/releases")).await;
    let image = list["items"][1]["image_id"].as_str().unwrap().to_owned();
    // Once its container has been stopped.
    let removed = async || {
        let force = RemoveImageOptionsBuilder::new().force(true).build();
        let removed = docker.remove_image(&image, Some(force), None).await;
        removed.is_ok()
    };
    assert!(soon(removed).await, "{}", server.log());

    let list = server.api(&format!("/api/v1/apps/{APP}/releases")).await;
    let states = |item: &Value| (item["kept"].clone(), item["gone"].clone());
    assert_eq!(states(&list["items"][0]), (json!(true), json!(false)));
    assert_eq!(states(&list["items"][1]), (json!(false), json!(true)));
    let (_, releases) = said(&server, &["releases", APP]);
    assert!(
        releases.contains("gone") && releases.contains("--rebuild"),
        "{releases}"
    );
    let (_, show) = said(&server, &["show", &first.id]);
    assert!(show.contains("gone"), "{show}");

    for to in [json!({}), json!({ "to": first.id })] {
        let request = Request::post(format!("/api/v1/apps/{APP}/rollback"))
            .header("authorization", format!("Bearer {}", server.token()));
        let answer = server.ask(request, to.to_string()).await;
        assert_eq!(answer.status, 409, "{}", answer.text());
        assert_eq!(answer.json()["error"]["code"], "image_gone");
    }
    let (code, text) = said(&server, &["rollback", APP, "--rebuild", "--follow"]);
    assert_eq!(code, Some(0), "{text}\n{}", server.log());
    assert_eq!(server.version().await, "v1");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_missing_is_counted() {
    let docker = docker().await;
    let settings = SETTINGS.replace("[apps.hello.run]", "[apps.hello.run]\nreplicas = 2");
    let mut server = Server::with(&settings).await;
    server.go_live("v1").await;
    let (_, status) = said(&server, &["status"]);
    assert!(!status.contains("2 instances"), "{status}");

    // Somebody's container has its name, so that it cannot be brought back.
    let missing = containers(&server).remove(1);
    let found = docker.inspect_container(&missing, None).await.unwrap();
    let options = CreateContainerOptionsBuilder::new().name(&missing).build();
    let body = ContainerCreateBody {
        image: found.image,
        ..Default::default()
    };
    remove(&docker, &missing).await;
    while let Err(error) = (docker.create_container(Some(options.clone()), body.clone())).await {
        // It was brought back between the two.
        assert!(error.to_string().contains("Conflict"), "{error}");
        remove(&docker, &missing).await;
    }
    let counted = async || said(&server, &["status"]).1.contains("1 of 2 instances");
    assert!(soon(counted).await, "{}", server.log());
    let app = server.api(&format!("/api/v1/apps/{APP}")).await;
    assert_eq!(app["instances"]["wanted"], 2);
    assert_eq!(app["instances"]["serving"], 1);
    assert_eq!(server.version().await, "v1");

    remove(&docker, &missing).await;
    let back = async || !said(&server, &["status"]).1.contains("1 of 2");
    assert!(soon(back).await, "{}", server.log());
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

async fn volume(docker: &Docker, container: &str) -> Option<String> {
    let found = docker.inspect_container(container, None).await.ok()?;
    found.mounts?.pop()?.name
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_was_removed_by_hand_gets_its_volume_back() {
    let docker = docker().await;
    let mut server = Server::start().await;
    let id = server.push_files(&with_volume("v1"), "v1").await;
    let (first, log) = server.ended(&id).await;
    assert_eq!(first.state, "live", "{log:#?}");
    let name = containers(&server).remove(0);
    let data = volume(&docker, &name).await.unwrap();
    let recorded = async || {
        let sql = "SELECT instance FROM volumes WHERE name = ?1";
        let of: Result<String, _> = database(&server).query_row(sql, [&data], |row| row.get(0));
        of.is_ok_and(|of| of == name)
    };
    assert!(soon(recorded).await, "{}", server.log());

    // While an agent runs, and while none does.
    remove(&docker, &name).await;
    let back = async || volume(&docker, &name).await.as_ref() == Some(&data);
    assert!(soon(back).await, "{}", server.log());
    server.stop().await;
    remove(&docker, &name).await;
    server.serve().await;
    assert!(soon(back).await, "{}", server.log());

    // With the next release it is kept, as any other.
    let id = server.push_files(&with_volume("v2"), "v2").await;
    server.ended(&id).await;
    let kept = async || said(&server, &["show", &first.id]).1.contains(&data);
    assert!(soon(kept).await, "{}", server.log());
    assert!(docker.inspect_volume(&data).await.is_ok());
    server.stop().await;
    let _ = docker
        .remove_volume(
            &data,
            None::<bollard::query_parameters::RemoveVolumeOptions>,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_nobody_knows_cannot_be_removed_and_who_removed_one_is_recorded() {
    let mut server = Server::start().await;
    server.go_live("v1").await;
    let (code, text) = said(&server, &["remove", "nobody", "--yes"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("nobody") && text.contains("database"),
        "{text}"
    );
    let request = Request::delete("/api/v1/apps/nobody")
        .header("authorization", format!("Bearer {}", server.token()));
    let answer = server.ask(request, "").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["error"]["code"], "unknown_app");

    // Lost, and not in deploy.toml either: it serves, so it can be removed.
    server.agent().kill().await.unwrap();
    for file in ["cutover.db", "cutover.db-wal", "cutover.db-shm"] {
        let _ = fs::remove_file(server.stage.data_dir.join(file));
    }
    let text = fs::read_to_string(&server.stage.config).unwrap();
    let other = text
        .replace("apps.hello", "apps.other")
        .replace("hello.test", "other.test");
    fs::write(&server.stage.config, other).unwrap();
    server.serve().await;
    assert_eq!(server.version().await, "v1");
    let (code, text) = said(&server, &["remove", APP, "--yes"]);
    assert_eq!(code, Some(0), "{text}\n{}", server.log());
    let gone = async || server.get("/").await.status != 200;
    assert!(soon(gone).await, "{}", server.log());
    let sql = "SELECT app, requested_by FROM actions WHERE action = 'remove'";
    let (app, by): (String, String) = database(&server)
        .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert!(app == APP && by.contains("local"), "{app} {by}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_engine_is_said_to_be_one_and_nothing_is_made_again_there() {
    let docker = docker().await;
    let mut server = Server::start().await;
    server.go_live("v1").await;
    let name = containers(&server).remove(0);
    let engine = docker.info().await.unwrap().id.unwrap();
    let recorded = async || {
        let sql = "SELECT 1 FROM instances WHERE engine = ?1";
        database(&server)
            .prepare(sql)
            .unwrap()
            .exists([&engine])
            .unwrap()
    };
    assert!(soon(recorded).await, "{}", server.log());

    // As an agent finds it whose `docker.host` leads elsewhere.
    server.stop().await;
    let update = "UPDATE instances SET engine = 'another'";
    database(&server).execute(update, []).unwrap();
    remove(&docker, &name).await;
    server.serve().await;
    let told = async || {
        said(&server, &["status"])
            .1
            .contains("started by the Docker Engine `another`")
    };
    assert!(soon(told).await, "{}", server.log());
    assert!(said(&server, &["doctor"]).1.contains("docker.host"));
    assert!(docker.inspect_container(&name, None).await.is_err());
    let (code, text) = said(&server, &["deploy", APP, "--follow"]);
    assert_eq!(code, Some(0), "{text}\n{}", server.log());
    assert_eq!(server.version().await, "v1");
    assert!(soon(async || !said(&server, &["status"]).1.contains("another")).await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_failed_pushes_and_names_that_nothing_needs_are_removed() {
    // SETTINGS keep three.
    let docker = docker().await;
    let mut server = Server::start().await;
    server.go_live("v1").await;
    for version in ["v2", "v3", "v4", "v5"] {
        let id = server.push(version, "exit-at-start").await;
        let (failed, log) = server.ended(&id).await;
        assert_eq!(failed.state, "failed", "{log:#?}");
    }
    let three = async || images(&docker, &server).await.len() == 3;
    assert!(soon(three).await, "{:?}", images(&docker, &server).await);
    server.go_live("v6").await;

    // The same tree again and again has names for the releases that are kept, and no more.
    for _ in 0..4 {
        let (code, text) = said(&server, &["deploy", APP, "--follow"]);
        assert_eq!(code, Some(0), "{text}");
    }
    let names = async || {
        let all = images(&docker, &server).await;
        all.iter().map(Vec::len).max().unwrap_or(0) <= 4
    };
    assert!(soon(names).await, "{:?}", images(&docker, &server).await);
    assert_eq!(server.version().await, "v6");
    server.stop().await;
    server.serve().await;
    assert_eq!(server.version().await, "v6");
    server.stop().await;
}

/// A copy of the database that is made while a deployment probes what it has started, and brought back
/// after that has gone live.
#[tokio::test(flavor = "multi_thread")]
async fn what_went_live_after_the_copy_was_made_is_not_undone() {
    let docker = docker().await;
    let settings = SETTINGS.replace(
        "interval = \"50ms\"\nsuccesses = 2",
        "interval = \"200ms\"\nsuccesses = 10",
    );
    let mut server = Server::with(&settings).await;
    server.go_live("1").await;
    let load = Mix::start(server.agent().proxy, HOST);
    let id = server.push("2", "").await;
    server.until_log(&id, "[start]").await;
    let copy = server.stage.data_dir.join("copy.db");
    let db = database(&server);
    db.execute("VACUUM INTO ?1", [copy.to_str().unwrap()])
        .unwrap();
    drop(db);
    let state = Connection::open(&copy).unwrap().query_row(
        "SELECT state FROM deployments WHERE id = ?1",
        [&id],
        |row| row.get::<_, String>(0),
    );
    assert!(
        matches!(state.as_deref(), Ok("starting" | "probing")),
        "{state:?}"
    );
    let (second, log) = server.ended(&id).await;
    assert_eq!(second.state, "live", "{log:#?}");
    load.switched_to(2);
    load.until_more().await;
    let live = containers(&server);
    let before = docker.inspect_container(&live[0], None).await.unwrap().id;

    server.agent().kill().await.unwrap();
    for file in ["cutover.db", "cutover.db-wal", "cutover.db-shm"] {
        let _ = fs::remove_file(server.stage.data_dir.join(file));
    }
    fs::rename(&copy, server.stage.data_dir.join("cutover.db")).unwrap();
    server.serve().await;
    let (second, log) = server.ended(&id).await;
    assert_eq!(second.state, "live", "{log:#?}\n{}", server.log());
    load.until_more().await;
    assert_eq!(containers(&server), live);
    let after = docker.inspect_container(&live[0], None).await.unwrap().id;
    assert_eq!(after, before, "the same container");
    server.go_live("3").await;
    load.switched_to(3);
    load.until_more().await;
    load.stop().await.assert_whole();
    server.stop().await;
}
