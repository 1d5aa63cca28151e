//! What an app wrote to a volume that its image declares outlives the container that it was written in,
//! and everybody who could wonder where it went is told.

use std::collections::HashSet;

use rusqlite::Connection;

use crate::server::{File, Server, files};
use crate::support::docker::docker;
use crate::support::wait::soon;

/// The sample app with a volume.
fn with_volume(version: &str) -> Vec<File> {
    let mut files = files(version, "");
    let is_dockerfile = |file: &&mut File| file.path == "Dockerfile";
    let dockerfile = files.iter_mut().find(is_dockerfile).unwrap();
    dockerfile.bytes.extend(b"\nVOLUME /data\n");
    files
}

async fn deploy(server: &Server, version: &str) -> (String, Vec<String>) {
    let id = server.push_files(&with_volume(version), version).await;
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "live", "{log:#?}\n{}", server.log());
    (id, log)
}

/// The volume of the live container.
async fn volume(server: &Server) -> String {
    let db = Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let sql = "SELECT i.name FROM instances i JOIN apps a ON a.live_release = i.release";
    let name: String = db.query_row(sql, [], |row| row.get(0)).unwrap();
    let found = docker().await.inspect_container(&name, None).await.unwrap();
    let mount = found.mounts.unwrap().remove(0);
    assert_eq!(mount.destination.as_deref(), Some("/data"));
    mount.name.unwrap()
}

async fn is_there(volume: &str) -> bool {
    docker().await.inspect_volume(volume).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_kept_as_long_as_its_release_and_named() {
    // SETTINGS keep three releases.
    let mut server = Server::start().await;
    let (first, log) = deploy(&server, "v1").await;
    let said = log.iter().any(|line| line.contains("volume at `/data`"));
    assert!(said, "{log:#?}");
    let mut all = vec![volume(&server).await];
    let said = async || {
        let status = server.cutover(&["status"]).output().unwrap();
        String::from_utf8_lossy(&status.stdout).contains("volume at `/data`")
    };
    assert!(soon(said).await, "{}", server.log());
    let doctor = server.cutover(&["doctor"]).output().unwrap();
    assert!(doctor.status.success(), "it is no failure");
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("volume at `/data`"), "{doctor}");

    deploy(&server, "v2").await;
    assert!(is_there(&all[0]).await, "{}", server.log());
    let named = async || {
        let show = server.cutover(&["show", &first]).output().unwrap();
        String::from_utf8_lossy(&show.stdout).contains(&all[0])
    };
    assert!(soon(named).await, "{}", server.log());

    for version in ["v3", "v4"] {
        all.push(volume(&server).await);
        deploy(&server, version).await;
    }
    all.push(volume(&server).await);
    assert!(!is_there(&all[0]).await, "its release is not kept any more");
    assert!(is_there(&all[1]).await && is_there(&all[2]).await);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());

    let removed = server.cutover(&["remove", "hello", "--yes", "--volumes"]);
    assert!({ removed }.status().unwrap().success());
    let gone = soon(async || {
        let mut left = 0;
        for volume in &all {
            left += usize::from(is_there(volume).await);
        }
        left == 0
    });
    assert!(gone.await, "{}", server.log());
    server.stop().await;
}
