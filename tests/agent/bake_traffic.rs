//! What a new release's traffic and its probes say of it while it bakes.

use std::net::SocketAddr;
use std::time::Duration;

use ::http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::notify::receiver;
use crate::server::{HOST, Server};
use crate::support::wait::soon;

pub const SETTINGS: &str = r#"
domains = ["hello.test"]
[apps.hello.health]
path = "/health"
interval = "50ms"
[apps.hello.deploy]
bake = "5s"
[apps.hello.run]
stop_grace = "1s"
"#;

/// Each of three clients asks for `path` so often.
pub async fn visit(server: &mut Server, path: &str, times: usize) {
    let proxy = server.agent().proxy;
    for client in 2..5 {
        for _ in 0..times {
            ask(proxy, [127, 0, 0, client], path).await;
        }
    }
}

async fn ask(proxy: SocketAddr, client: [u8; 4], path: &str) -> String {
    let exchange = async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((client, 0).into()).unwrap();
        let mut stream = socket.connect(proxy).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(Duration::from_secs(30), exchange);
    answer.await.expect("an answer in time")
}

/// Pushes, and returns once its requests are served by what was pushed.
pub async fn baking(server: &Server, version: &str, behaviour: &str) -> String {
    let id = server.push(version, behaviour).await;
    server.until_log(&id, "[drain]").await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_was_broken_before_rolls_nothing_back() {
    let mut server = Server::with(SETTINGS).await;
    let first = baking(&server, "v1", "fail 1 /env").await;
    // Few enough for a first release.
    visit(&mut server, "/env", 2).await;
    visit(&mut server, "/", 20).await;
    let (first, log) = server.ended(&first).await;
    assert_eq!(first.state, "live", "{log:#?}");

    let second = baking(&server, "v2", "fail 1 /env").await;
    visit(&mut server, "/env", 10).await;
    let (second, log) = server.ended(&second).await;
    assert_eq!(second.state, "live", "{log:#?}");
    let said = log.iter().find(|line| line.starts_with("[bake]")).unwrap();
    assert!(
        said.contains("30 of 30") && said.contains("6 of 66"),
        "{said}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_broken_now_rolls_back_and_is_named() {
    let settings = SETTINGS.replace("\"5s\"", "\"60s\"");
    let mut server = Server::with(&settings).await;
    baking(&server, "v1", "").await;
    visit(&mut server, "/env", 10).await;

    // One client alone may be to blame itself.
    let second = baking(&server, "v2", "fail 1 /env").await;
    let proxy = server.agent().proxy;
    for _ in 0..30 {
        let answer = ask(proxy, [127, 0, 0, 9], "/env").await;
        assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
    }
    visit(&mut server, "/env", 10).await;
    let (bad, log) = server.ended(&second).await;
    assert_eq!(bad.state, "rolled_back", "{log:#?}");
    let error = bad.error.unwrap();
    assert_eq!(error.code, "errors_in_bake");
    for word in ["`/env`", "100 %", "0 of 30"] {
        assert!(error.message.contains(word), "no {word}: {error:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_failed_probes_in_a_row_roll_back_without_any_traffic() {
    let settings = SETTINGS.replace("\"5s\"", "\"60s\"");
    let mut server = Server::with(&settings).await;
    baking(&server, "v1", "").await;
    let second = server.push("v2", "unhealthy-after 2000").await;
    let (bad, log) = server.ended(&second).await;
    assert_eq!(bad.state, "rolled_back", "{log:#?}");
    let error = bad.error.unwrap();
    assert_eq!(error.code, "unhealthy_in_bake");
    assert!(error.message.contains("503"), "{error:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exceeds_its_memory_is_rolled_back() {
    let settings = SETTINGS.replace("\"5s\"", "\"60s\"");
    let settings = settings.replace("stop_grace", "memory = \"32m\"\nstop_grace");
    let mut server = Server::with(&settings).await;
    baking(&server, "v1", "").await;
    let second = server.push("v2", "eat-after 2000").await;
    let (bad, log) = server.ended(&second).await;
    assert_eq!(bad.state, "rolled_back", "{log:#?}");
    assert_eq!(bad.error.unwrap().code, "crashed_in_bake");
    server.stop().await;
}

/// After its bake: Docker starts it again, and people are told why.
#[tokio::test(flavor = "multi_thread")]
async fn what_exceeds_its_memory_later_is_shown_counted_and_told() {
    let (receiver, got) = receiver(&[]).await;
    let settings = SETTINGS.replace("\"5s\"", "\"0s\"");
    let settings = settings.replace("stop_grace", "memory = \"32m\"\nstop_grace");
    let settings = format!(
        "{settings}[notify.ops]\nkind = 'webhook'\nurl = {{ env = 'OPS_URL' }}\n\
         secret = {{ env = 'OPS_KEY' }}\nevents = ['crashing']\n"
    );
    let mut server = Server::idle(&settings).await;
    server.set_env("OPS_URL", &receiver);
    server.set_env("OPS_KEY", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    server.serve().await;
    let id = server.push("v1", "eat-after 3000").await;
    let (live, log) = server.ended(&id).await;
    assert_eq!(live.state, "live", "{log:#?}");
    let kills = "\ncutover_instance_oom_kills_total{app=\"hello\"} ";
    let counted = soon(async || {
        let metrics = server.ask(Request::get("/metrics"), "").await.text();
        metrics.contains(kills)
    });
    assert!(counted.await, "{}", server.log());
    let why = "used more memory than its";
    let status = server.cutover(&["status"]).output().unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains(why), "{status}");
    let told = soon(async || got.lock().iter().any(|(_, body)| body.contains(why)));
    assert!(told.await, "{:?}\n{}", got.lock(), server.log());
    server.stop().await;
}
