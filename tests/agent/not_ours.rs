//! Containers and images that somebody made from ours: nothing happens to them, and they are not used.

use std::collections::HashMap;

use bollard::models::{ContainerConfig, ContainerCreateBody};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder,
};
use rusqlite::Connection;

use crate::server::Server;
use crate::support::docker::docker;

fn container(server: &Server) -> String {
    let db = Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    // The one before may still be stopping.
    let sql = "SELECT i.name FROM instances i JOIN apps a ON a.live_release = i.release";
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// A container by hand, with a volume of its own.
async fn run_by_hand(image: &str, labels: HashMap<String, String>, tag: &str) -> String {
    let name = format!("mine-{}-{tag}", std::process::id());
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        labels: Some(labels),
        volumes: Some(vec!["/data".to_owned()]),
        ..Default::default()
    };
    let docker = docker().await;
    docker.create_container(Some(options), body).await.unwrap();
    docker.start_container(&name, None).await.unwrap();
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_of_our_image_and_an_image_from_ours_are_somebody_else_s() {
    let docker = docker().await;
    let mut server = Server::start().await;
    let first = server.go_live("v1").await;
    let image = first.image.clone().unwrap();
    let ours = container(&server);
    let found = docker.inspect_container(&ours, None).await.unwrap();
    let labels = found.config.unwrap().labels.unwrap();

    // Every label of ours, as from an image that was committed from the container.
    let options = CommitContainerOptionsBuilder::new()
        .container(&ours)
        .repo(&format!("{ours}-committed"))
        .tag("1");
    let config = ContainerConfig::default();
    let committed = docker.commit_container(options.build(), config).await;
    let committed = committed.unwrap().id;
    let mine = [
        run_by_hand(&image, HashMap::new(), "image").await,
        run_by_hand(&image, labels, "labels").await,
        run_by_hand(&committed, HashMap::new(), "committed").await,
    ];

    // The same tree again is what was built, not what was made from it.
    let again = server.go_live("v1").await;
    let running = docker.inspect_container(&container(&server), None).await;
    let runs = running.unwrap().image.unwrap();
    let tagged = docker.inspect_image(again.image.as_deref().unwrap()).await;
    assert_eq!(tagged.unwrap().id.as_deref(), Some(runs.as_str()));
    assert_ne!(runs, committed);

    // Nor does the sweep of a start take away what is theirs, nor a database that knows nothing.
    server.stop().await;
    server.serve().await;
    server.go_live("v2").await;
    server.stop().await;
    let lost = container(&server);
    for file in ["cutover.db", "cutover.db-wal", "cutover.db-shm"] {
        let _ = std::fs::remove_file(server.stage.data_dir.join(file));
    }
    server.serve().await;
    server.go_live("v3").await;
    for name in mine.iter().chain([&lost]) {
        let left = docker.inspect_container(name, None).await;
        let left = left.unwrap_or_else(|error| panic!("`{name}`: {error}\n{}", server.log()));
        assert_eq!(left.state.unwrap().running, Some(true), "{name}");
    }

    for name in &mine {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true);
        let _ = docker.remove_container(name, Some(options.build())).await;
    }
    let options = RemoveImageOptionsBuilder::new().force(true).build();
    let _ = docker.remove_image(&committed, Some(options), None).await;
    server.stop().await;
}
