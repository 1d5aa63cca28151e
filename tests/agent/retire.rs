//! Old instances stop in the background: nobody waits for an app that does not want to end.

use http::Request;

use crate::crash::agrees;
use crate::server::{APP, File, SETTINGS, Server, files};
use crate::support::docker::docker;
use crate::support::wait::soon;

/// The sample app as one that ignores SIGTERM.
fn stubborn(version: &str) -> Vec<File> {
    let mut files = files(version, "");
    let dockerfile = files.iter_mut().find(|file| file.path == "Dockerfile");
    let dockerfile = dockerfile.unwrap();
    let text = String::from_utf8(dockerfile.bytes.clone()).unwrap();
    assert!(text.contains("STOPSIGNAL SIGKILL\n"));
    dockerfile.bytes = text.replace("STOPSIGNAL SIGKILL\n", "").into_bytes();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_that_do_not_want_to_end_are_not_kept_without_end() {
    let settings = SETTINGS.replace("stop_grace = \"2s\"", "stop_grace = \"10m\"\ninit = false");
    let mut server = Server::with(&settings).await;
    let mut load = None;
    for version in ["v1", "v2", "v3", "v4", "v5", "v6"] {
        let id = server.push_files(&stubborn(version), version).await;
        let (deployment, log) = server.ended(&id).await;
        assert_eq!(deployment.state, "live", "{log:#?}\n{}", server.log());
        load.get_or_insert_with(|| server.load());
    }
    let few = async || retiring(&server).len() == 3;
    assert!(soon(few).await, "{:?}\n{}", retiring(&server), server.log());
    assert!(server.log().contains("killed before its `stop_grace`"));
    let report = load.unwrap().stop().await;
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    for name in retiring(&server) {
        docker().await.kill_container(&name, None).await.unwrap();
    }
    let stopped = soon(async || retiring(&server).is_empty()).await;
    assert!(stopped, "{:?}\n{}", retiring(&server), server.log());
    agrees(&server, "the end").await;
    server.stop().await;
}

/// The containers of old instances that are being stopped.
fn retiring(server: &Server) -> Vec<String> {
    let db = rusqlite::Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let sql = "SELECT name FROM instances WHERE retiring_since IS NOT NULL";
    let mut query = db.prepare(sql).unwrap();
    let rows = query.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_deployment_does_not_wait_until_the_last_one_s_old_version_has_stopped() {
    let settings = SETTINGS.replace("stop_grace = \"2s\"", "stop_grace = \"10m\"\ninit = false");
    let mut server = Server::with(&settings).await;
    let mut load = None;
    for version in ["v1", "v2", "v3"] {
        let id = server.push_files(&stubborn(version), version).await;
        let (deployment, log) = server.ended(&id).await;
        assert_eq!(deployment.state, "live", "{log:#?}\n{}", server.log());
        load.get_or_insert_with(|| server.load());
    }
    assert_eq!(retiring(&server).len(), 2);

    // The release that is gone back to is not warm any more: it gets an instance of its own.
    let request = Request::post(format!("/api/v1/apps/{APP}/rollback"))
        .header("authorization", format!("Bearer {}", server.token()));
    let back = server.ask(request, "").await.json();
    let (back, log) = server.ended(back["id"].as_str().unwrap()).await;
    assert_eq!(back.state, "live", "{log:#?}\n{}", server.log());
    assert_eq!(server.version().await, "v2");

    // What one agent leaves, the next one stops, when the app ends at last.
    server.agent().kill().await.unwrap();
    server.serve().await;
    let old = retiring(&server);
    assert_eq!(old.len(), 3);
    for name in &old {
        docker().await.kill_container(name, None).await.unwrap();
    }
    let stopped = soon(async || retiring(&server).is_empty()).await;
    assert!(stopped, "{:?}\n{}", retiring(&server), server.log());
    agrees(&server, "the end").await;
    assert_eq!(server.version().await, "v2");
    let report = load.unwrap().stop().await;
    assert!(report.failures.is_empty(), "{:#?}", report.failures);
    server.stop().await;
}
