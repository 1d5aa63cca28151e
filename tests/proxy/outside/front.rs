//! Another proxy in front, as the README says to set it up. `CUTOVER_FRONT_SWITCHES=20` runs the
//! full number of switches.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::process::Command;

use crate::proxy::{Proxy, app, read_head};
use crate::support::hello::Hello;
use crate::support::mix::Mix;
use crate::support::tool;

/// Under load against `front`: nobody notices a switch.
async fn switches(proxy: &Proxy, front: SocketAddr) {
    let switches = std::env::var("CUTOVER_FRONT_SWITCHES").map_or(3, |n| n.parse().unwrap());
    let mut app = Hello::start(1).await;
    proxy.publish(1, &[app.address]).await;
    let mix = Mix::start(front, "hello.example.com");
    let mut applied = Vec::new();
    for generation in 2..switches + 2 {
        mix.until_more().await;
        let next = Hello::start(generation).await;
        proxy.publish(generation, &[next.address]).await;
        mix.switched_to(generation);
        let (limit, window) = (Duration::from_secs(10), Duration::from_millis(100));
        let drain = proxy.client.drain("app", generation, limit, window).await;
        assert_eq!(drain.unwrap().failed, 0);
        applied.extend(std::mem::replace(&mut app, next).stop().await);
    }
    let mixed = mix.stop().await;
    applied.extend(app.stop().await);
    mixed.assert_whole();
    let mut posted = mixed.report.posted.clone();
    applied.sort();
    posted.sort();
    assert_eq!(applied, posted, "every POST exactly once");
    assert!(
        mixed.going_away >= switches && mixed.events_ended >= switches,
        "{mixed:?}"
    );
}

/// Publishes an app that answers with the head it got, and asks for it from 127.0.0.9.
async fn head_seen_by_the_app(proxy: &Proxy, front: SocketAddr) -> String {
    let mirror = app(|mut stream| async move {
        let head = read_head(&mut stream).await;
        let length = head.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{head}");
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    proxy.publish(1000, &[mirror]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let mut stream = socket.connect(front).await.unwrap();
    let get = "GET / HTTP/1.1\r\nHost: hello.example.com\r\nConnection: close\r\n\r\n";
    stream.write_all(get.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.to_lowercase()
}

/// The part of the README that stands between "```nginx" and "```".
fn documented() -> &'static str {
    let readme = include_str!("../../../README.md");
    let (_, rest) = readme.split_once("```nginx\n").expect("the README has it");
    rest.split_once("```").unwrap().0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_in_front_as_documented() {
    let Some(nginx) = tool::find("nginx", "nginx-light") else {
        return;
    };
    let proxy = Proxy::start_with(|o| o.trusted = vec!["127.0.0.1/32".parse().unwrap()]).await;
    let (folder, front) = (tempfile::tempdir().unwrap(), tool::free_address());
    let site = documented()
        .replace("127.0.0.1:8080", &proxy.address.to_string())
        .replace("listen 80;", &format!("listen {front};"));
    assert!(site.contains(&front.to_string()) && site.contains(&proxy.address.to_string()));
    let path = folder.path().display();
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {path}/{name};\n"))
        .concat();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log {path}/error.log;\n\
         events {{}}\nhttp {{\naccess_log off;\n{folders}{site}}}\n"
    );
    let config = folder.path().join("nginx.conf");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(nginx);
    let command = command.arg("-e").arg(folder.path().join("error.log"));
    let _nginx = tool::serving(command.arg("-c").arg(&config), front).await;
    switches(&proxy, front).await;
    let head = head_seen_by_the_app(&proxy, front).await;
    for line in [
        "\r\nhost: hello.example.com\r\n",
        "\r\nx-forwarded-for: 127.0.0.9, 127.0.0.1\r\n",
        "\r\nx-forwarded-proto: http\r\n",
    ] {
        assert!(head.contains(line), "{line:?} in {head}");
    }
    let errors = std::fs::read_to_string(folder.path().join("error.log")).unwrap();
    assert!(!errors.contains("[error]"), "{errors}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_in_front_says_whose_connection_it_is() {
    let Some(haproxy) = tool::find("haproxy", "haproxy") else {
        return;
    };
    let proxy = Proxy::start_with(|options| options.proxy_protocol = true).await;
    let (folder, front) = (tempfile::tempdir().unwrap(), tool::free_address());
    let config = folder.path().join("haproxy.cfg");
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n\
         listen front\n  bind {front}\n  server cutover {} send-proxy-v2\n",
        proxy.address
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(haproxy);
    let command = command.arg("-db").arg("-q").arg("-f").arg(&config);
    let _haproxy = tool::serving(command, front).await;
    switches(&proxy, front).await;
    let head = head_seen_by_the_app(&proxy, front).await;
    let line = "\r\nx-forwarded-for: 127.0.0.9\r\n";
    assert!(head.contains(line), "{head}");
    proxy.stop().await;
}
