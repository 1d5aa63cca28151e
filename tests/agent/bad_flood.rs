//! Ten thousand requests that nobody signed, or that nobody can read: refused, in bounded memory and
//! a few lines of log, while who signs is let in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::server::{APP, HOST, SETTINGS, Server, files, free_address};
use crate::support::demo::{forge, http};
use ::http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

const OLD: &str = "1111111111111111111111111111111111111111";
const ALL: usize = 10_000;
/// Requests at once.
const CLIENTS: usize = 16;

/// Kilobytes that the agent has in memory.
fn resident(server: &Server) -> u64 {
    let config = server.stage.config.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let is_agent = |line: &[u8]| {
        let words: Vec<_> = line.split(|byte| *byte == 0).collect();
        words.contains(&config.as_bytes()) && words.contains(&b"serve".as_slice())
    };
    let mut agents = processes.filter(|process| {
        std::fs::read(process.path().join("cmdline")).is_ok_and(|line| is_agent(&line))
    });
    let status = agents.next().expect("the agent runs").path().join("status");
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let words: Vec<_> = line.unwrap().split_whitespace().collect();
    words[1].parse().unwrap()
}

/// The `number`th bad request: each kind in its turn, with a body of a few KiB.
fn bad(number: usize, secret: &str) -> (::http::request::Builder, String) {
    let filler = "x".repeat(2 << 10);
    let body = forge::payload("refs/heads/main", OLD, OLD, &filler).to_string();
    let hook = |app: &str| {
        Request::post(format!("/hooks/{app}"))
            .header("host", HOST)
            .header("content-type", "application/json")
            .header("x-github-event", "push")
            .header("x-github-delivery", number.to_string())
    };
    match number % 5 {
        0 => (hook(APP), body),
        1 => {
            let signature = forge::signature("another secret", body.as_bytes());
            (hook(APP).header("x-hub-signature-256", signature), body)
        }
        2 => {
            let body = body[..body.len() - 1].to_owned();
            let signature = forge::signature(secret, body.as_bytes());
            (hook(APP).header("x-hub-signature-256", signature), body)
        }
        3 => (hook(&format!("app-{number}")), body),
        _ => {
            let path = format!("/api/v1/apps/{APP}/deployments");
            let wrong = format!("Bearer {number}");
            let request = Request::post(path).header("host", HOST);
            (request.header("authorization", wrong), "{}".into())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_bad_requests_cost_little_and_lock_nobody_out() {
    let mut server = Server::with(SETTINGS).await;
    let (address, secret) = (server.agent().address, server.stage.secret.clone());
    let flood = async |all: usize| {
        let next = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (next, secret) = (next.clone(), secret.clone());
                tokio::spawn(async move {
                    let mut answers = BTreeMap::new();
                    loop {
                        let number = next.fetch_add(1, Relaxed);
                        if number >= all {
                            return answers;
                        }
                        let (request, body) = bad(number, &secret);
                        let answer = http::send(address, request, body).await;
                        let answer = answer.unwrap_or_else(|error| panic!("{number}: {error}"));
                        if answer.status == 429 {
                            let wait = answer.headers["retry-after"].to_str().unwrap();
                            assert!(wait.parse::<u64>().unwrap() >= 1, "{wait}");
                        }
                        *answers.entry(answer.status.as_u16()).or_insert(0) += 1;
                    }
                })
            })
            .collect();
        let mut answers = BTreeMap::new();
        for client in clients {
            for (status, count) in client.await.unwrap() {
                *answers.entry(status).or_insert(0) += count;
            }
        }
        answers
    };
    // What the first ones fill, buffers and caches, is not growth.
    flood(500).await;
    let (before, lines) = (resident(&server), server.log().lines().count());
    let answers = flood(ALL).await;
    let grown = resident(&server).saturating_sub(before);
    assert_eq!(answers.values().sum::<usize>(), ALL, "{answers:?}");
    assert!(answers.keys().all(|status| (400..500).contains(status)));
    assert_eq!(answers[&400], ALL / 5, "signed and malformed: {answers:?}");
    assert!(answers[&429] > ALL / 2, "{answers:?}");
    assert!(grown < 32 << 10, "{grown} KiB more");
    // At most one line a minute of each of the four kinds.
    let lines = server.log().lines().count() - lines;
    assert!(lines <= 12, "{lines} lines:\n{}", server.log());
    let refused = "a delivery with a missing or wrong signature was refused: from 127.0.0.1 for";
    assert!(server.log().contains(refused), "{}", server.log());

    // From the same address: who signs, and who has the token, is let in.
    let live = server.push_files(&files("v1", ""), "v1").await;
    assert_eq!(server.ended(&live).await.0.state, "live");
    let path = format!("/api/v1/apps/{APP}");
    let token = format!("Bearer {}", server.token());
    let request = Request::get(&path).header("authorization", token);
    assert_eq!(server.ask(request, "").await.status, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_come_from_the_networks_that_are_allowed() {
    let agent = "[agent]\nwebhook_networks = ['192.0.2.0/24']\ndomain = 'agent.test'\n";
    let mut server = Server::idle(SETTINGS).await;
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    std::fs::write(&server.stage.config, text.replacen("[agent]\n", agent, 1)).unwrap();
    server.serve().await;
    let (_, new) = server.stage.commit("main", &files("v1", ""), "v1").unwrap();
    let body = forge::payload("refs/heads/main", OLD, &new, "v1").to_string();
    let signature = forge::signature(&server.stage.secret, body.as_bytes());
    let hook = |client: &str| {
        Request::post(format!("/hooks/{APP}"))
            .header("content-type", "application/json")
            .header("x-github-event", "push")
            .header("x-hub-signature-256", &signature)
            .header("x-forwarded-for", client)
    };
    // As Cutover's own proxy says: what the client claims itself stands before that.
    for (client, status) in [
        ("198.51.100.1", 403),
        ("192.0.2.1, 198.51.100.1", 403),
        ("198.51.100.1, 192.0.2.1", 202),
    ] {
        let answer = server.ask(hook(client), body.as_str()).await;
        assert_eq!(answer.status, status, "{client}: {}", answer.text());
    }
    server.stop().await;
}

/// Sends a request of one's own from an address of this machine; gives the answer's status.
async fn status_from(client: [u8; 4], proxy: SocketAddr, request: &str) -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((client, 0))).unwrap();
    let mut stream = socket.connect(proxy).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer[9..12].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn through_the_own_proxy_the_network_is_the_one_that_the_proxy_saw() {
    let agent = "[agent]\ndomain = 'agent.test'\n";
    let webhook = "[apps.hello.webhook]\nnetworks = ['127.0.0.2/32']\n";
    let mut server = Server::idle(SETTINGS).await;
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let listen = format!("listen = \"{}\"", free_address());
    let text = text.replacen("[agent]\n", agent, 1);
    let text = text.replacen("[apps.hello.webhook]\n", webhook, 1);
    let text = text.replacen("listen = \"127.0.0.1:0\"", &listen, 1);
    std::fs::write(&server.stage.config, text).unwrap();
    server.serve().await;
    let proxy = server.agent().proxy;
    let (_, new) = server.stage.commit("main", &files("v1", ""), "v1").unwrap();
    let body = forge::payload("refs/heads/main", OLD, &new, "v1").to_string();
    let signature = forge::signature(&server.stage.secret, body.as_bytes());
    let hook = |more: &str| {
        format!(
            "POST /hooks/{APP} HTTP/1.1\r\nhost: agent.test\r\nconnection: close\r\n\
             content-type: application/json\r\nx-github-event: push\r\n\
             x-hub-signature-256: {signature}\r\n{more}content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for claim in [
        "",
        "x-forwarded-for: 127.0.0.2\r\n",
        "x-forwarded-for: 127.0.0.2\r\nX-Forwarded-For: 127.0.0.2\r\n",
        "x_forwarded_for: 127.0.0.2\r\n",
        "forwarded: for=127.0.0.2\r\nx-real-ip: 127.0.0.2\r\n",
        "connection: x-forwarded-for\r\nx-forwarded-for: 127.0.0.2\r\n",
    ] {
        let status = status_from([127, 0, 0, 1], proxy, &hook(claim)).await;
        assert_eq!(status, 403, "{claim}");
    }
    for claim in ["", "x-forwarded-for: 127.0.0.1\r\n"] {
        let status = status_from([127, 0, 0, 2], proxy, &hook(claim)).await;
        assert_eq!(status, 202, "{claim}");
    }
    server.stop().await;
}
