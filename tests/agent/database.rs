//! The database is lost, or an old copy is brought back: what serves goes on serving, it is said, and
//! the next deployment takes over.

use std::fs;

use crate::server::{APP, HOST, Server};
use crate::support::demo::http;
use crate::support::wait::soon;

const FILES: [&str; 3] = ["cutover.db", "cutover.db-wal", "cutover.db-shm"];

pub fn remove_database(server: &Server) {
    for file in FILES {
        let _ = fs::remove_file(server.stage.data_dir.join(file));
    }
}

fn said(server: &Server, verb: &str) -> String {
    let output = server.cutover(&[verb]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_old_database_takes_no_route_away() {
    const SAYS: &str = "serves a release that the database does not know";
    let mut server = Server::start().await;
    server.go_live("v1").await;
    server.agent().kill().await.unwrap();
    let data = server.stage.data_dir.clone();
    let backup = data.join("backup.db");
    // Closing it brings what is in the log into the one file.
    let db = rusqlite::Connection::open(data.join("cutover.db")).unwrap();
    db.execute("VACUUM INTO ?1", [backup.to_str().unwrap()])
        .unwrap();
    drop(db);

    remove_database(&server);
    server.serve().await;
    assert_eq!(server.version().await, "v1", "{}", server.log());
    for verb in ["status", "doctor"] {
        let text = said(&server, verb);
        assert!(text.contains(SAYS), "{verb}: {text}\n{}", server.log());
    }
    server.go_live("v2").await;
    assert_eq!(server.version().await, "v2");
    assert!(!said(&server, "doctor").contains(SAYS));

    server.agent().kill().await.unwrap();
    remove_database(&server);
    fs::rename(&backup, data.join("cutover.db")).unwrap();
    server.serve().await;
    assert_eq!(server.version().await, "v2", "{}", server.log());
    assert!(said(&server, "status").contains(SAYS), "{}", server.log());

    // Nobody misses it: it can be taken away all the same.
    let removed = server.cutover(&["remove", APP, "--yes"]).output().unwrap();
    assert!(removed.status.success(), "{removed:?}\n{}", server.log());
    assert_eq!(server.get("/").await.status, 503, "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_damaged_database_the_proxy_serves_on() {
    let mut server = Server::start().await;
    server.go_live("v1").await;
    let address = server.agent().proxy;
    server.agent().kill().await.unwrap();
    let path = server.stage.data_dir.join("cutover.db");
    let backup = server.stage.data_dir.join("backup.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("VACUUM INTO ?1", [backup.to_str().unwrap()])
        .unwrap();
    drop(db);
    remove_database(&server);
    fs::write(&path, vec![b'x'; 64 << 10]).unwrap();

    let log = fs::File::options().append(true).open(&server.stage.log);
    let log = log.unwrap();
    let mut serve = server.cutover(&["serve"]);
    let serve = serve.stdout(log.try_clone().unwrap()).stderr(log);
    let mut agent = serve.spawn().unwrap();
    let waits = "nothing can be deployed until the database can be used";
    assert!(
        soon(async || server.log().contains(waits)).await,
        "{}",
        server.log()
    );
    let got = http::get(address, HOST, "/").await.unwrap();
    assert_eq!(got.status, 200);
    let doctor = said(&server, "doctor");
    assert!(doctor.contains("cutover.db` cannot be used"), "{doctor}");

    fs::rename(&backup, &path).unwrap();
    let ready = async || server.stage.client().get("/readyz").await.is_ok();
    assert!(soon(ready).await, "{}", server.log());
    let deploy = server.cutover(&["deploy", APP, "--follow"]).output();
    let deploy = deploy.unwrap();
    let _ = agent.kill();
    let _ = agent.wait();
    assert!(deploy.status.success(), "{deploy:?}\n{}", server.log());
}
