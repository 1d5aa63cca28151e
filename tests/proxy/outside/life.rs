//! The proxy as a process: started cold, by systemd, from a damaged file, and replaced.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cutover::proxy::ADDRESSES;
use cutover::proxy::control::Client;
use cutover::proxy::table::Table;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::proxy::{Proxy, route};
use crate::support::hello::Hello;
use crate::support::mix::Mix;
use crate::support::wait::soon;

const LIMIT: Duration = Duration::from_secs(20);

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    command
        .args(["proxy", "--data-dir"])
        .arg(folder)
        .env_remove("CUTOVER_CONFIG")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true);
    command
}

fn start(folder: &Path, http: &str) -> Child {
    let _ = std::fs::remove_file(folder.join(ADDRESSES));
    command(folder).args(["--http", http]).spawn().unwrap()
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap()
}

fn client(folder: &Path) -> Client {
    Client::new(folder.join("proxy.sock"))
}

/// Until it serves.
async fn address(folder: &Path) -> SocketAddr {
    let begun = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(folder.join(ADDRESSES))
            && client(folder).hello().await.is_ok()
        {
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            return json["http"].as_str().unwrap().parse().unwrap();
        }
        assert!(begun.elapsed() < LIMIT, "{}", log(folder));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn get(address: SocketAddr, host: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let get = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(get.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn table(generation: u64, target: SocketAddr, routes: usize) -> Table {
    let route = |number: usize| {
        let mut route = route(&format!("app{number}"), generation, &[target]);
        route.hosts = vec![format!("app{number}.test")];
        route
    };
    Table {
        generation,
        routes: (0..routes).map(route).collect(),
        ..Default::default()
    }
}

/// With a thousand routes, and nobody to tell it any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_it_serves_again_at_once_from_what_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let app = Hello::start(1).await;
    let mut proxy = start(folder, "127.0.0.1:0");
    let first = address(folder).await;
    let table = table(1, app.address, 1_000);
    client(folder).publish(&table).await.unwrap();
    let mut took = Vec::new();
    for _ in 0..3 {
        proxy.kill().await.unwrap();
        let begun = Instant::now();
        proxy = start(folder, &first.to_string());
        let answer = loop {
            match get(first, "app999.test").await {
                Ok(answer) => break answer,
                Err(_) => assert!(begun.elapsed() < LIMIT, "{}", log(folder)),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        took.push(begun.elapsed());
        assert!(answer.contains("Hello from 1"), "{answer}");
    }
    // 100 ms are promised, of a release build on a machine that is not busy with other tests.
    let best = took.iter().min().unwrap();
    println!("from the kill to the first answer: {took:?}");
    assert!(*best < Duration::from_secs(2), "{took:?}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_table_is_not_used_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (one, two) = (Hello::start(1).await, Hello::start(2).await);
    let mut proxy = start(folder, "127.0.0.1:0");
    address(folder).await;
    for (generation, app) in [(1, &one), (2, &two)] {
        let table = table(generation, app.address, 1);
        client(folder).publish(&table).await.unwrap();
    }
    proxy.kill().await.unwrap();
    let path = folder.join("routes.json");
    let whole = std::fs::read(&path).unwrap();
    let mut altered = whole.clone();
    altered[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() / 2], &altered, b""] {
        std::fs::write(&path, damaged).unwrap();
        std::fs::remove_file(folder.join("log")).unwrap();
        let mut proxy = start(folder, "127.0.0.1:0");
        let address = address(folder).await;
        let answer = get(address, "app0.test").await.unwrap();
        assert!(answer.contains("Hello from 1"), "the one before: {answer}");
        let said = log(folder);
        assert!(said.contains("ignoring `routes.json`"), "{said}");
        assert!(said.contains("routes.json.1"), "{said}");
        proxy.kill().await.unwrap();
    }
    for app in [one, two] {
        app.stop().await;
    }
}

/// As systemd does: the socket is there before the proxy, as descriptor 3, and outlives it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_serves_from_a_socket_that_systemd_gave_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let app = Hello::start(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let given = listener.local_addr().unwrap();
    let start = || {
        let mut activated = Command::new("/bin/sh");
        let script = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 </dev/null";
        activated
            .args(["-c", script, env!("CARGO_BIN_EXE_cutover")])
            // Where it would listen otherwise, it could not.
            .args(["proxy", "--http", "192.0.2.1:1", "--data-dir"])
            .arg(folder)
            .stdin(OwnedFd::from(listener.try_clone().unwrap()))
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        activated.spawn().unwrap()
    };
    let mut proxy = start();
    assert_eq!(address(folder).await, given);
    client(folder)
        .publish(&table(1, app.address, 1))
        .await
        .unwrap();
    let answer = get(given, "app0.test").await.unwrap();
    assert!(answer.contains("Hello from 1"), "{answer}");
    proxy.kill().await.unwrap();
    // Whoever comes while there is no proxy waits, and is served by the next.
    let waiting = tokio::spawn(get(given, "app0.test"));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let _next = start();
    let answer = tokio::time::timeout(LIMIT, waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(answer.contains("Hello from 1"), "{answer}");
    app.stop().await;
}

/// A new version that does not come up leaves the old one as it was: serving, and in the agent's
/// reach.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_that_breaks_at_start_changes_nothing_and_a_good_one_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (one, two) = (Hello::start(1).await, Hello::start(2).await);
    let mut old = start(folder, "127.0.0.1:0");
    let listening = address(folder).await;
    client(folder)
        .publish(&table(1, one.address, 1))
        .await
        .unwrap();

    let config = folder.join("deploy.toml");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (address, taken)).unwrap();
    let text = format!(
        "[agent]\ndata_dir = {folder:?}\n[proxy]\nhttp = \"{listening}\"\nhttps = \"{}\"\n",
        taken.0
    );
    std::fs::write(&config, text).unwrap();
    let broken = Command::new(env!("CARGO_BIN_EXE_cutover"))
        .arg("--config")
        .arg(&config)
        .args(["proxy", "--takeover"])
        .output();
    let broken = tokio::time::timeout(LIMIT, broken).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&broken.stderr);
    assert!(
        !broken.status.success() && said.contains(&taken.0.to_string()),
        "{said}"
    );
    // It is asked until it has noticed that the other one broke off.
    let next = table(2, two.address, 1);
    assert!(soon(async || client(folder).publish(&next).await.is_ok()).await);
    let answer = get(listening, "app0.test").await.unwrap();
    assert!(answer.contains("Hello from 2"), "{answer}");

    let mut good = command(folder);
    let good = good.args(["--http", &listening.to_string(), "--takeover"]);
    let _good = good.spawn().unwrap();
    let left = tokio::time::timeout(LIMIT, old.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(left.success(), "{left}");
    let answer = get(listening, "app0.test").await.unwrap();
    assert!(answer.contains("Hello from 2"), "{answer}");
    assert_eq!(client(folder).hello().await.unwrap().generation, 2);
    for app in [one, two] {
        app.stop().await;
    }
}

/// The program itself replaced, again and again, with everything under way that a client can have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_replaced_under_load_drop_nothing() {
    let takeovers = std::env::var("CUTOVER_TAKEOVERS").map_or(3, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let app = Hello::start(1).await;
    let mut proxies = vec![start(folder, "127.0.0.1:0")];
    let listening = address(folder).await;
    client(folder)
        .publish(&table(1, app.address, 1))
        .await
        .unwrap();
    let mix = Mix::start(listening, "app0.test");
    for generation in 2..takeovers + 2 {
        mix.until_more().await;
        let pid = client(folder).hello().await.unwrap().pid;
        let mut next = command(folder);
        let next = next.args(["--http", &listening.to_string(), "--takeover"]);
        proxies.push(next.spawn().unwrap());
        let same = |hello: cutover::proxy::control::Hello| hello.pid == pid;
        let replaced = soon(async || !client(folder).hello().await.is_ok_and(same)).await;
        assert!(replaced, "{}", log(folder));
        let table = table(generation, app.address, 1);
        let published = soon(async || client(folder).publish(&table).await.is_ok()).await;
        assert!(published, "{}", log(folder));
    }
    let _last = proxies.pop();
    for mut old in proxies {
        let left = tokio::time::timeout(3 * LIMIT, old.wait()).await;
        assert!(left.unwrap().unwrap().success(), "{}", log(folder));
    }
    mix.until_more().await;
    let mixed = mix.stop().await;
    mixed.assert_whole();
    assert!(mixed.going_away > 0 && mixed.events_ended > 0, "{mixed:?}");
    let mut applied = app.stop().await;
    let mut posted = mixed.report.posted.clone();
    applied.sort();
    posted.sort();
    assert_eq!(applied, posted, "every POST exactly once");
}

/// Lines that cannot be written are lost, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_the_access_log_holds_nobody_up() {
    let log = |options: &mut cutover::proxy::Options| options.access_log = Some("/dev/full".into());
    let proxy = Proxy::start_with(log).await;
    let app = Hello::start(1).await;
    proxy.publish(1, &[app.address]).await;
    let mix = Mix::start(proxy.address, "a.test");
    for _ in 0..5 {
        mix.until_more().await;
    }
    mix.stop().await.assert_whole();
    assert!(
        Path::new("/dev/full").exists(),
        "it is no file to be set aside"
    );
    app.stop().await;
    proxy.stop().await;
}

/// In KiB.
fn memory(proxy: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.id().unwrap())).unwrap();
    let line = status.lines().find_map(|it| it.strip_prefix("RssAnon:"));
    line.unwrap().trim_end_matches("kB").trim().parse().unwrap()
}

#[tokio::test]
async fn a_connection_that_rests_keeps_no_buffer() {
    const CONNECTIONS: u64 = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let app = Hello::start(1).await;
    let mut command = command(folder);
    // What is freed goes back to the system at once: how much of it the allocator keeps is another matter.
    command.env("MALLOC_MMAP_THRESHOLD_", "4096");
    let proxy = command.args(["--http", "127.0.0.1:0"]).spawn().unwrap();
    let address = address(folder).await;
    let table = table(1, app.address, 1);
    client(folder).publish(&table).await.unwrap();
    get(address, "app0.test").await.unwrap();
    let before = memory(&proxy);
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let get = b"GET / HTTP/1.1\r\nHost: app0.test\r\n\r\n";
        stream.write_all(get).await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        held.push(stream);
    }
    // 8 as it should be, in a debug build; 11 with hyper's buffer.
    let each = || memory(&proxy).saturating_sub(before) / CONNECTIONS;
    assert!(soon(async || each() < 10).await, "{} KiB each", each());
}
