//! What is live is broken by hand while no agent runs, and comes back at its start. `faults` breaks it
//! while one runs.

use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, NetworkingConfig,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
    StopContainerOptionsBuilder,
};
use rusqlite::Connection;

use crate::server::{APP, HOST, Server};
use crate::support::demo::http;
use crate::support::docker::docker;
use crate::support::wait::soon;

/// The name and the address of the live instance, as the record has them.
pub fn instance(server: &Server) -> (String, String) {
    let db = Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let sql = "SELECT i.name, i.endpoint FROM instances i
               JOIN apps a ON a.live_release = i.release";
    db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
}

pub fn network(server: &Server) -> String {
    let db = Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let sql = "SELECT 'cutover-' || value || '-hello' FROM meta WHERE key = 'agent_id'";
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

pub async fn remove(docker: &Docker, name: &str) {
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    docker.remove_container(name, Some(options)).await.unwrap();
}

pub async fn stop(docker: &Docker, name: &str) {
    let options = StopContainerOptionsBuilder::new().t(0).build();
    docker.stop_container(name, Some(options)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_broken_while_no_agent_ran_comes_back_at_its_start() {
    let docker = docker().await;
    let mut server = Server::start().await;
    server.go_live("v1").await;
    let serves = async |server: &mut Server| {
        let proxy = server.agent().proxy;
        let ok = async || {
            http::get(proxy, HOST, "/")
                .await
                .is_ok_and(|it| it.status == 200)
        };
        soon(ok).await
    };

    // Its network is pruned while it is stopped.
    server.stop().await;
    let (name, _) = instance(&server);
    stop(&docker, &name).await;
    docker.remove_network(&network(&server)).await.unwrap();
    server.serve().await;
    assert!(serves(&mut server).await, "{}", server.log());

    // Another container has its address.
    server.stop().await;
    let (name, endpoint) = instance(&server);
    stop(&docker, &name).await;
    let (network, image) = (network(&server), image(&docker, &name).await);
    let address = endpoint.split(':').next().unwrap().to_owned();
    let thief = format!("thief-{}", std::process::id());
    take_address(&docker, &thief, &image, &network, &address).await;
    server.serve().await;
    let elsewhere = soon(async || instance(&server).1 != endpoint).await;
    let back = elsewhere && serves(&mut server).await;
    remove(&docker, &thief).await;
    assert!(back, "{}", server.log());

    // Its image is gone with it: only a person can say what is to be built.
    server.stop().await;
    let (name, _) = instance(&server);
    remove(&docker, &name).await;
    let options = RemoveImageOptionsBuilder::new().force(true).build();
    docker
        .remove_image(&image, Some(options), None)
        .await
        .unwrap();
    server.serve().await;
    let said = async || {
        let app = server.api(&format!("/api/v1/apps/{APP}")).await;
        app["problems"]
            .to_string()
            .contains("cutover deploy hello --ref")
    };
    assert!(soon(said).await, "{}", server.log());
    let asked = Instant::now();
    let answer = server.get("/").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(asked.elapsed() < Duration::from_secs(1), "at once");
    let status = server.cutover(&["status"]).output().unwrap();
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(text.contains("its image was removed"), "{text}");
    let doctor = server.cutover(&["doctor"]).output().unwrap();
    assert!(!doctor.status.success(), "it is not all well");
    server.stop().await;
}

pub async fn image(docker: &Docker, container: &str) -> String {
    let found = docker.inspect_container(container, None).await.unwrap();
    found.image.unwrap()
}

pub async fn take_address(docker: &Docker, name: &str, image: &str, network: &str, address: &str) {
    let endpoint = EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(address.to_owned()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some([(network.to_owned(), endpoint)].into()),
        }),
        ..Default::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    docker.create_container(Some(options), body).await.unwrap();
    docker.start_container(name, None).await.unwrap();
}
