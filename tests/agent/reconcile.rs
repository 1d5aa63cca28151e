//! What is live is broken by hand, and comes back by itself. `CUTOVER_RECONCILE_ROUNDS=10` breaks each
//! thing that often; the table says what was broken, how long it took, and what was said meanwhile.

use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, NetworkDisconnectRequest,
    NetworkingConfig,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
    StopContainerOptionsBuilder,
};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};

use crate::server::{APP, HOST, Server};
use crate::support::demo::http;
use crate::support::docker::docker;
use crate::support::wait::soon;

/// From the event to the first request that is served. The goal is two seconds on a quiet machine.
const LIMIT: Duration = Duration::from_secs(10);

fn rounds() -> usize {
    let rounds = std::env::var("CUTOVER_RECONCILE_ROUNDS").ok();
    rounds.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// The name and the address of the live instance, as the record has them.
fn instance(server: &Server) -> (String, String) {
    let db = Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let sql = "SELECT i.name, i.endpoint FROM instances i
               JOIN apps a ON a.live_release = i.release";
    db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
}

fn network(server: &Server) -> String {
    let db = Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let sql = "SELECT 'cutover-' || value FROM meta WHERE key = 'agent_id'";
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[derive(Debug, Clone, Copy)]
enum Break {
    Stop,
    Kill,
    Remove,
    Pause,
    Disconnect,
    Crash,
}

impl Break {
    const ALL: [Break; 6] = [
        Break::Stop,
        Break::Kill,
        Break::Remove,
        Break::Pause,
        Break::Disconnect,
        Break::Crash,
    ];

    async fn happen(self, docker: &Docker, server: &Server) {
        let (name, _) = instance(server);
        match self {
            Break::Stop => {
                let options = StopContainerOptionsBuilder::new().t(0).build();
                docker.stop_container(&name, Some(options)).await.unwrap();
            }
            Break::Kill => docker.kill_container(&name, None).await.unwrap(),
            Break::Remove => remove(docker, &name).await,
            Break::Pause => docker.pause_container(&name).await.unwrap(),
            Break::Disconnect => {
                let request = NetworkDisconnectRequest {
                    container: name,
                    force: Some(true),
                };
                let network = network(server);
                docker.disconnect_network(&network, request).await.unwrap();
            }
            // Not through Docker, as an app ends by itself.
            Break::Crash => {
                let found = docker.inspect_container(&name, None).await.unwrap();
                let pid = found.state.unwrap().pid.unwrap() as i32;
                kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
            }
        }
    }
}

async fn remove(docker: &Docker, name: &str) {
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    docker.remove_container(name, Some(options)).await.unwrap();
}

async fn stop(docker: &Docker, name: &str) {
    let options = StopContainerOptionsBuilder::new().t(0).build();
    docker.stop_container(name, Some(options)).await.unwrap();
}

#[derive(Debug, Default)]
struct Mended {
    after: Duration,
    failed: usize,
    /// The longest that a client waited for an answer.
    slowest: Duration,
    said: Option<String>,
}

/// Breaks it, asks without a pause until requests are served again, and looks at what is said meanwhile.
async fn mended(server: &mut Server, docker: &Docker, what: Break) -> Mended {
    let (done, over) = tokio::sync::watch::channel(false);
    let client = server.stage.client();
    let looking = tokio::spawn(async move {
        let mut said = None;
        loop {
            let app = client.get(&format!("/api/v1/apps/{APP}")).await.unwrap();
            said = said.or(app["problems"][0].as_str().map(str::to_owned));
            if *over.borrow() {
                return said;
            }
        }
    });
    let proxy = server.agent().proxy;
    what.happen(docker, server).await;
    let begun = Instant::now();
    let mut mended = Mended::default();
    while mended.after.is_zero() || begun.elapsed() < mended.after + Duration::from_secs(1) {
        assert!(
            begun.elapsed() < LIMIT,
            "{what:?}: {mended:?}\n{}",
            server.log()
        );
        let asked = Instant::now();
        let answer = http::get(proxy, HOST, "/").await;
        mended.slowest = mended.slowest.max(asked.elapsed());
        if !answer.is_ok_and(|answer| answer.status == 200) {
            mended.failed += 1;
            mended.after = Duration::ZERO;
        } else if mended.after.is_zero() {
            mended.after = begun.elapsed();
        }
    }
    done.send_replace(true);
    mended.said = looking.await.unwrap();
    mended
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_by_hand_comes_back() {
    let docker = docker().await;
    let mut server = Server::start().await;
    server.go_live("v1").await;
    println!(
        "{:<12} {:>9} {:>7} {:>9}  said",
        "broken", "back", "failed", "slowest"
    );
    for (break_, _) in Break::ALL
        .iter()
        .flat_map(|it| (0..rounds()).map(move |n| (it, n)))
    {
        let mended = mended(&mut server, &docker, *break_).await;
        let said = mended.said.as_deref().unwrap_or("-");
        println!(
            "{:<12} {:>6} ms {:>7} {:>6} ms  {said}",
            format!("{break_:?}"),
            mended.after.as_millis(),
            mended.failed,
            mended.slowest.as_millis()
        );
        // The crash may be over before anybody looks.
        assert!(
            mended.said.is_some() || matches!(break_, Break::Crash),
            "{break_:?}"
        );
    }
    let metrics = server
        .ask(::http::Request::get("/metrics"), "")
        .await
        .text();
    for was in ["stopped", "paused", "disconnected"] {
        let line = format!("cutover_instances_repaired_total{{app=\"{APP}\",was=\"{was}\"}}");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    assert!(
        metrics.contains("cutover_instance_crashes_total"),
        "{metrics}"
    );
    server.stop().await;
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

async fn image(docker: &Docker, container: &str) -> String {
    let found = docker.inspect_container(container, None).await.unwrap();
    found.image.unwrap()
}

async fn take_address(docker: &Docker, name: &str, image: &str, network: &str, address: &str) {
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
