//! The engine dies while it builds.

use std::path::Path;

use cutover::cli::setup::DEFAULT_HOST;
use rustix::process::Signal;

use crate::faults::Dockerd;
use crate::limits::app;
use crate::processes::rewrite;
use crate::server::{SETTINGS, Server};
use crate::support::demo::cleanup::remove_all_of;
use crate::support::tool;

#[tokio::test(flavor = "multi_thread")]
async fn a_build_whose_builder_dies_begins_again_when_it_is_back() {
    if !Path::new("/bin/busybox").exists() {
        return tool::skip("there is no /bin/busybox (apt-get install busybox-static)");
    }
    // The test's bridge has few addresses.
    let settings = format!("{SETTINGS}[apps.hello.build]\nnetwork = \"none\"\n");
    let mut server = Server::idle(&settings).await;
    let mut dockerd = Dockerd::make(&server.stage.folder);
    rewrite(&server, DEFAULT_HOST, &dockerd.host());
    dockerd.start().await;
    server.serve().await;
    server.go_live("v1").await;

    let slow = app("v2", "echo it has begun; busybox sleep 10");
    let id = server.push_files(&slow, "v2").await;
    server.until_log(&id, "it has begun").await;
    dockerd.signal(Signal::KILL);
    server.until_log(&id, "interrupted: ").await;
    assert_eq!(server.version().await, "v1");
    let docker = dockerd.start().await;
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "live", "{log:#?}\n{}", server.log());
    assert_eq!(server.version().await, "v2");
    server.stop().await;
    remove_all_of(&docker, &server.stage.data_dir)
        .await
        .unwrap();
}
