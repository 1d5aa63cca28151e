//! Whoever connects, sends slowly or lies about who it is keeps nobody else out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use ::http::Request;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::server::{APP, CUTOVER, HOST, SETTINGS, Server, files};
use crate::support::demo::http;

/// Far below the half minute for which a stranger may hold a place.
const PROMPT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn slow_large_bodies_keep_no_signed_push_waiting() {
    let mut server = Server::start().await;
    let address = server.agent().address;
    let mut slow = Vec::new();
    for _ in 0..17 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head =
            format!("POST /hooks/{APP} HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 70000\r\n\r\nx");
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let begun = Instant::now();
    let message = "x".repeat(70_000);
    let id = server.push_files(&files("v1", ""), &message).await;
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    assert_eq!(server.ended(&id).await.0.state, "live");
}

#[tokio::test(flavor = "multi_thread")]
async fn four_hundred_idle_connections_leave_descriptors_for_the_agents_work() {
    for limit in [64, 40] {
        let mut server = Server::idle(SETTINGS).await;
        let limited = server.stage.folder.join("limited");
        let script = format!("#!/bin/sh\nulimit -n {limit}\nexec {CUTOVER} \"$@\"\n");
        fs::write(&limited, script).unwrap();
        fs::set_permissions(&limited, fs::Permissions::from_mode(0o755)).unwrap();
        server.serve_by(&limited).await;
        let address = server.agent().address;
        let mut idle = Vec::new();
        for _ in 0..400 {
            idle.push(TcpStream::connect(address).await.unwrap());
            // The proxy, which has no more descriptors, must still take the agent's commands.
            let proxy = server.agent().proxy;
            idle.push(TcpStream::connect(proxy).await.unwrap());
        }
        let begun = Instant::now();
        let id = server.push("v1", "").await;
        assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
        let apps = Request::get("/api/v1/apps");
        let apps = apps.header("authorization", format!("Bearer {}", server.token()));
        assert_eq!(server.ask(apps, "").await.status, 200);
        let (ended, log) = server.ended(&id).await;
        assert_eq!(ended.state, "live", "{limit}: {log:#?}\n{}", server.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inventing_clients_evades_no_count_of_refusals() {
    let mut server = Server::idle(SETTINGS).await;
    let text = fs::read_to_string(&server.stage.config).unwrap();
    let text = text.replace("[agent]", "[agent]\ndomain = \"deploy.test\"");
    fs::write(&server.stage.config, text).unwrap();
    server.serve().await;
    let address = server.agent().address;
    let mut refused = 0;
    while refused < 2000 {
        let guess = Request::get("/api/v1/apps")
            .header("host", "deploy.test")
            .header("authorization", format!("Bearer {refused}"))
            .header(
                "x-forwarded-for",
                format!("10.0.{}.{}", refused / 250, refused % 250),
            );
        let answer = http::send(address, guess, Vec::new()).await.unwrap();
        if answer.status == 429 {
            break;
        }
        assert_eq!(answer.status, 401);
        refused += 1;
    }
    assert!(refused < 2000, "not one was told to wait");
}
