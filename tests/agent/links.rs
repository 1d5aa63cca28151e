//! Apps that reach others by their names, and nothing else.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use rusqlite::Connection;

use crate::server::{APP, SETTINGS, Server, files};
use crate::support::demo::http;
use crate::support::docker::docker;
use crate::support::wait::soon;

/// Two more apps of the same repository.
fn settings() -> String {
    let more = ["api", "stranger"].map(|app| {
        let text = SETTINGS.replace(".hello", &format!(".{app}"));
        let text = text.replace("hello.test", &format!("{app}.test"));
        format!("[apps.{app}]\nrepo = \"hello.git\"\nport = 8080\n{text}")
    });
    format!("{SETTINGS}links = [\"api\"]\n{}", more.concat())
}

fn run(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let done = server.cutover(arguments).output().unwrap();
    let out = String::from_utf8_lossy(&done.stdout).into_owned();
    let err = String::from_utf8_lossy(&done.stderr).into_owned();
    (done.status.code(), out + &err)
}

fn deploy(server: &Server, app: &str) {
    let (code, said) = run(server, &["deploy", app, "--follow"]);
    assert_eq!(code, Some(0), "{said}\n{}", server.log());
}

/// The address of an app's live instance.
fn endpoint(server: &Server, app: &str) -> String {
    let db = Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let sql = "SELECT i.endpoint FROM instances i JOIN apps a ON a.live_release = i.release
               WHERE a.name = ?1";
    db.query_row(sql, [app], |row| row.get(0)).unwrap()
}

/// This machine's address on the network of the app with links.
fn gateway(server: &Server) -> String {
    let db = Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let sql = "SELECT subnet FROM networks";
    let subnet: String = db.query_row(sql, [], |row| row.get(0)).unwrap();
    subnet.replace(".0/22", ".1")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_app_is_reached_by_its_name_through_a_switch_and_by_nobody_else() {
    let mut server = Server::with(&settings()).await;
    let (address, proxy) = (server.agent().address, server.agent().proxy);
    server.go_live("v1").await;
    let fetch = |from: &str, to: &str, count: &str| {
        let path = "/slow?ms=20";
        run(
            &server,
            &[
                "exec", from, "--", "/hello", "fetch", to, "api", path, count,
            ],
        )
    };
    assert_eq!(fetch(APP, "api", "1"), (Some(0), "503 -\n".to_owned()));
    deploy(&server, "api");
    deploy(&server, "stranger");
    assert_eq!(fetch(APP, "api", "1"), (Some(0), "200 v1\n".to_owned()));
    let job = ["run", APP, "--", "/hello", "fetch", "api", "api", "/", "1"];
    assert_eq!(run(&server, &job), (Some(0), "200 v1\n".to_owned()));

    // To the old release and to the new one, and no request is lost.
    let (is_live, answers) = (AtomicBool::new(false), Mutex::new(String::new()));
    std::thread::scope(|scope| {
        let visit = || {
            // To the old release first, and at least once when the new one is live.
            let mut is_last = false;
            while !is_last {
                is_last = is_live.load(SeqCst);
                let (_, said) = fetch(APP, "api", "40");
                answers.lock().unwrap().push_str(&said);
            }
        };
        // Two that overlap, so that some are under way at each moment.
        let visitors = [scope.spawn(visit), scope.spawn(visit)];
        while answers.lock().unwrap().is_empty() {
            assert!(visitors.iter().all(|it| !it.is_finished()));
            std::thread::sleep(Duration::from_millis(5));
        }
        let committed = server.stage.commit("main", &files("v2", ""), "v2");
        committed.unwrap_or_else(|error| panic!("{error}"));
        deploy(&server, "api");
        is_live.store(true, SeqCst);
    });
    let said = answers.into_inner().unwrap();
    let of = |line: &str| said.lines().filter(|it| *it == line).count();
    let (old, new, all) = (of("200 v1"), of("200 v2"), said.lines().count());
    assert!(old > 0 && new > 0 && old + new == all, "{said}");

    // An app without the link does not know the name, and is not let in where it is known.
    assert_eq!(fetch("stranger", "api", "1").0, Some(1));
    let gateway = gateway(&server);
    assert_eq!(fetch("stranger", &gateway, "1").1, "403 -\n");
    let reach = |from: &str, address: &str| {
        let once = || run(&server, &["exec", from, "--", "/hello", "reach", address]).0;
        // While Docker makes another network its rules are gone for a moment.
        (0..5).map(|_| once()).max().flatten()
    };
    let link = format!("{gateway}:80");
    assert_eq!(reach(APP, &link), Some(0), "{link}");
    for hidden in [
        endpoint(&server, "api"),
        endpoint(&server, "stranger"),
        format!("{gateway}:{}", address.port()),
    ] {
        assert_eq!(reach(APP, &hidden), Some(1), "{hidden}");
    }
    assert_eq!(reach("stranger", &endpoint(&server, "api")), Some(1));
    // From outside there is no such host.
    let outside = http::get(proxy, "api", "/").await.unwrap();
    assert_eq!(outside.status, 404);

    // The link is of the app, not of a container: it is there after a crash of everything.
    server.agent().kill().await.unwrap();
    server.serve().await;
    assert_eq!(fetch_again(&server), "200 v2\n");

    // It goes with the app, although deploy.toml still has that.
    let db = Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let sql = "SELECT name FROM networks WHERE app = ?1";
    let network: String = db.query_row(sql, [APP], |row| row.get(0)).unwrap();
    let (code, said) = run(&server, &["remove", APP, "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    let docker = docker().await;
    let gone = soon(async || docker.inspect_network(&network, None).await.is_err());
    assert!(gone.await, "{}", server.log());
    server.stop().await;
}

fn fetch_again(server: &Server) -> String {
    run(
        server,
        &["exec", APP, "--", "/hello", "fetch", "api", "api", "/", "1"],
    )
    .1
}
