//! What is in front of every app: redirects, who comes in, header fields, and challenges.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::proxy::{Proxy, app, read_head, route, says};
use crate::support::tool;
use crate::support::wait::soon;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cutover::proxy::front::{
    BasicAuth, Changes, Front, Logged, PathPattern, RateLimit, Redirect, User,
};
use cutover::proxy::table::{Policy, Route, Table};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An app that answers with the head that it was sent.
pub async fn mirror() -> SocketAddr {
    app(|mut stream| async move {
        let head = read_head(&mut stream).await;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nServer: mirror\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{head}",
            head.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await
}

fn behind(front: Front, hosts: &[&str], target: SocketAddr) -> Route {
    Route {
        hosts: hosts.iter().map(|host| host.to_string()).collect(),
        policy: Policy {
            front: Some(Arc::new(front)),
            ..Policy::default()
        },
        ..route("app", 1, &[target])
    }
}

async fn publish(proxy: &Proxy, routes: Vec<Route>) {
    proxy.client.publish(&Table::new(1, routes)).await.unwrap();
}

pub async fn get(proxy: &Proxy, host: &str, path: &str, fields: &str) -> String {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n");
    proxy.raw(&request).await.to_lowercase()
}

fn certify(folder: &Path, file: &str, name: &str) {
    let made = rcgen::generate_simple_self_signed(vec![name.into()]).unwrap();
    std::fs::create_dir_all(folder).unwrap();
    let text = made.signing_key.serialize_pem() + &made.cert.pem();
    std::fs::write(folder.join(file), text).unwrap();
}

#[tokio::test]
async fn hosts_lead_to_the_canonical_one_and_to_elsewhere() {
    let proxy = Proxy::start().await;
    let canonical = Front {
        canonical: Some("www.a.test".into()),
        ..Front::default()
    };
    let old = |host: &str, keep_path, permanent| Route {
        app: "@redirects".into(),
        ..behind(
            Front {
                redirect: Some(Redirect {
                    to: "https://new.test".into(),
                    permanent,
                    keep_path,
                }),
                ..Front::default()
            },
            &[host],
            "127.0.0.1:1".parse().unwrap(),
        )
    };
    let hosts = ["a.test", "www.a.test"];
    let routes = vec![
        behind(canonical, &hosts, mirror().await),
        old("old.test", true, true),
        old("gone.test", false, false),
    ];
    publish(&proxy, routes).await;
    let answer = get(&proxy, "A.test.:81", "/x?y=%2f", "").await;
    assert!(answer.starts_with("http/1.1 308 "), "{answer}");
    assert!(
        answer.contains("\r\nlocation: http://www.a.test:81/x?y=%2f\r\n"),
        "{answer}"
    );
    let answer = get(&proxy, "WWW.a.test.:81", "/x", "").await;
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");
    assert!(answer.contains("\r\nx-forwarded-port: 81\r\n"), "{answer}");
    let answer = get(&proxy, "old.test", "/x?y", "").await;
    assert!(answer.starts_with("http/1.1 308 "), "{answer}");
    assert!(
        answer.contains("\r\nlocation: https://new.test/x?y\r\n"),
        "{answer}"
    );
    let answer = get(&proxy, "gone.test", "/x?y", "").await;
    assert!(answer.starts_with("http/1.1 307 "), "{answer}");
    assert!(
        answer.contains("\r\nlocation: https://new.test\r\n"),
        "{answer}"
    );
    proxy.stop().await;
}

#[tokio::test]
async fn who_may_not_come_in_is_told_so_by_the_address_that_trusted_proxies_name() {
    let proxy = Proxy::start_with(|options| {
        options.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let front = Front {
        deny: vec!["192.0.2.0/24".parse().unwrap()],
        rate_limit: Some(RateLimit {
            requests: 1,
            window_ms: 60_000,
            burst: 2,
        }),
        request_headers: Changes {
            set: BTreeMap::from([("x-stage".into(), "live".into())]),
            ..Changes::default()
        },
        response_headers: Changes {
            remove: vec!["server".into()],
            add: BTreeMap::from([("x-frame-options".into(), "DENY".into())]),
            ..Changes::default()
        },
        ..Front::default()
    };
    publish(&proxy, vec![behind(front, &[], mirror().await)]).await;
    let from = |address: &str| format!("X-Forwarded-For: 6.6.6.6, {address}, 127.0.0.9\r\n");
    let denied = get(&proxy, "a.test", "/", &from("192.0.2.7")).await;
    assert!(denied.starts_with("http/1.1 403 "), "{denied}");
    for _ in 0..2 {
        let taken = get(&proxy, "a.test", "/", &from("198.51.100.1")).await;
        assert!(taken.starts_with("http/1.1 200 "), "{taken}");
        assert!(taken.contains("\r\nx-frame-options: deny\r\n"), "{taken}");
        assert!(!taken.contains("\r\nserver: mirror\r\n"), "{taken}");
        assert!(taken.contains("\r\nx-stage: live\r\n"), "{taken}");
    }
    let more = get(&proxy, "a.test", "/", &from("198.51.100.1")).await;
    assert!(more.starts_with("http/1.1 429 "), "{more}");
    assert!(more.contains("\r\nretry-after: "), "{more}");
    let other = get(&proxy, "a.test", "/", &from("198.51.100.2")).await;
    assert!(other.starts_with("http/1.1 200 "), "{other}");
    proxy.stop().await;
}

/// The body of an answer, without its chunks, unpacked.
fn unpacked(answer: &[u8]) -> (String, Vec<u8>) {
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let mut rest = &answer[end..];
    let mut body = Vec::new();
    while head.contains("transfer-encoding: chunked") && !rest.is_empty() {
        let line = rest.windows(2).position(|it| it == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
    if body.is_empty() {
        body = rest.to_vec();
    }
    let mut text = Vec::new();
    let coding = head.split("content-encoding: ").nth(1);
    match coding.and_then(|it| it.split('\r').next()) {
        Some("gzip") => flate2::read::GzDecoder::new(&body[..])
            .read_to_end(&mut text)
            .map(drop),
        Some("br") => brotli::Decompressor::new(&body[..], 4096)
            .read_to_end(&mut text)
            .map(drop),
        Some("zstd") => zstd::stream::copy_decode(&body[..], &mut text),
        _ => {
            text = body;
            Ok(())
        }
    }
    .unwrap();
    (head, text)
}

#[tokio::test]
async fn what_gains_by_it_is_compressed_as_the_client_likes_it() {
    let proxy = Proxy::start().await;
    let page = |number: usize| format!("<p>{number}</p>").repeat(20_000);
    let sends = move |stream: TcpStream| async move {
        let mut stream = stream;
        let head = read_head(&mut stream).await;
        let (path, mut body) = (head.split(' ').nth(1).unwrap(), page(7));
        let mut fields =
            "Content-Type: text/html\r\nETag: \"1\"\r\nAccept-Ranges: bytes\r\n".to_owned();
        match path {
            "/png" => fields = fields.replace("text/html", "image/png"),
            "/packed" => fields += "Content-Encoding: gzip\r\n",
            "/fixed" => fields += "Cache-Control: public, no-transform\r\n",
            "/short" => body = "short".into(),
            _ => {}
        }
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\n{fields}Connection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        let _ = stream.write_all(answer.as_bytes()).await;
        if !head.starts_with("HEAD") {
            let _ = stream.write_all(body.as_bytes()).await;
        }
    };
    let front = Front {
        compress: true,
        ..Front::default()
    };
    publish(&proxy, vec![behind(front, &[], app(sends).await)]).await;
    let ask = async |method: &str, path: &str, fields: &str| {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{fields}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    };
    for (accepts, coding) in [
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, br", "br"),
        ("gzip", "gzip"),
    ] {
        let answer = ask("GET", "/", &format!("Accept-Encoding: {accepts}\r\n")).await;
        assert!(answer.len() < 20_000, "{}", answer.len());
        let (head, text) = unpacked(&answer);
        assert!(
            head.contains(&format!("\r\ncontent-encoding: {coding}\r\n")),
            "{head}"
        );
        for field in ["vary: accept-encoding", "etag: w/\"1\""] {
            assert!(head.contains(&format!("\r\n{field}\r\n")), "{head}");
        }
        assert!(
            !head.contains("accept-ranges") && !head.contains("content-length"),
            "{head}"
        );
        assert_eq!(text, page(7).as_bytes());
    }
    let all = "Accept-Encoding: zstd, gzip\r\n";
    let exposed = format!("{all}Cookie: a=b\r\nSec-Fetch-Site: cross-site\r\n");
    for (method, path, fields) in [
        ("GET", "/png", all),
        ("GET", "/packed", all),
        ("GET", "/fixed", all),
        ("GET", "/short", all),
        ("HEAD", "/", all),
        ("GET", "/", ""),
        ("GET", "/", &*exposed),
    ] {
        let answer = ask(method, path, fields).await;
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        assert!(text.starts_with("http/1.1 200 "), "{text:.500}");
        assert!(
            !text.contains("content-encoding: zstd"),
            "{method} {path}: {text:.500}"
        );
        assert!(
            text.contains("\r\ncontent-length: "),
            "{method} {path}: {text:.500}"
        );
        assert!(
            text.contains("\r\netag: \"1\"\r\n"),
            "{method} {path}: {text:.500}"
        );
    }
    let own = format!("{all}Cookie: a=b\r\nSec-Fetch-Site: same-origin\r\n");
    let (head, _) = unpacked(&ask("GET", "/", &own).await);
    assert!(head.contains("content-encoding: zstd"), "{head}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_slow_upload_troubles_the_app_only_when_it_is_whole() {
    let proxy = Proxy::start().await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let takes = app(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut text = Vec::new();
            let end = b"the end";
            while !text.ends_with(end) {
                let mut part = [0; 16 << 10];
                match stream.read(&mut part).await {
                    Ok(n @ 1..) => text.extend_from_slice(&part[..n]),
                    _ => return,
                }
                tell.send(text.len()).unwrap();
            }
            let head = text.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
            let sum = text[head..].iter().map(|&b| u64::from(b)).sum::<u64>();
            let fields = String::from_utf8_lossy(&text[..head]).to_lowercase();
            let said = format!("{} {sum} {}", text.len() - head, fields.contains("chunked"));
            let answer = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{said}",
                said.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let front = Front {
        buffer_requests: Some(8 << 10),
        ..Front::default()
    };
    let mut route = behind(front, &[], takes.await);
    route.policy.max_body = Some(1 << 20);
    publish(&proxy, vec![route]).await;
    // What fits into memory, and what does not.
    for size in [100, 300_000] {
        let mut body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        body.extend_from_slice(b"the end");
        let sum = body.iter().map(|&b| u64::from(b)).sum::<u64>();
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let head = "POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        for part in body.chunks(50_000) {
            let chunk = format!("{:x}\r\n", part.len());
            let chunk = [chunk.as_bytes(), part, b"\r\n"].concat();
            stream.write_all(&chunk).await.unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert!(told.try_recv().is_err(), "the app knows of nothing yet");
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let said = format!("{} {sum} false", body.len());
        assert!(answer.ends_with(&said), "{said}: {answer}");
        while told.try_recv().is_ok() {}
    }
    let large = format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n{}",
        "x".repeat(2 << 20)
    );
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let _ = stream.write_all(large.as_bytes()).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert!(told.try_recv().is_err(), "nor ever of this one");
    proxy.stop().await;
}

#[tokio::test]
async fn cookies_of_an_app_below_a_path_are_for_that_path() {
    let proxy = Proxy::start().await;
    let sets = says(
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
        std::time::Duration::ZERO,
    );
    let front = Front {
        scope_cookie_paths: true,
        ..Front::default()
    };
    let mut below = behind(front, &[], sets.await);
    below.path_prefix = "/shop".into();
    below.policy.strip_prefix = true;
    publish(&proxy, vec![below]).await;
    let answer = get(&proxy, "a.test", "/shop/x", "").await;
    assert!(
        answer.contains("\r\nset-cookie: a=1; path=/shop/\r\n"),
        "{answer}"
    );
    assert!(answer.contains("\r\nset-cookie: b=2\r\n"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_compressed_goes_on_streaming() {
    let proxy = Proxy::start().await;
    let (next, turn) = tokio::sync::mpsc::channel::<&str>(1);
    let turn = Arc::new(tokio::sync::Mutex::new(turn));
    let streams = move |mut stream: TcpStream| {
        let turn = turn.clone();
        async move {
            let _ = read_head(&mut stream).await;
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            while let Some(line @ ("one\n" | "two\n" | "three\n")) = turn.lock().await.recv().await
            {
                let chunk = format!("{:x}\r\n{line}\r\n", line.len());
                let _ = stream.write_all(chunk.as_bytes()).await;
            }
            let _ = stream.write_all(b"0\r\n\r\n").await;
        }
    };
    let front = Front {
        compress: true,
        ..Front::default()
    };
    publish(&proxy, vec![behind(front, &[], app(streams).await)]).await;
    for coding in ["gzip", "br", "zstd"] {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nAccept-Encoding: {coding}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let mut seen = 0;
        for line in ["one\n", "two\n", "three\n"] {
            next.send(line).await.unwrap();
            // Something of each arrives before the next one is sent.
            let head = |answer: &[u8]| answer.windows(4).position(|it| it == b"\r\n\r\n");
            while head(&answer).is_none_or(|end| answer.len() <= end + 4) || answer.len() == seen {
                let mut part = [0; 4096];
                let read = stream.read(&mut part).await.unwrap();
                assert!(read > 0, "{coding}");
                answer.extend_from_slice(&part[..read]);
            }
            seen = answer.len();
        }
        next.send("end").await.unwrap();
        stream.read_to_end(&mut answer).await.unwrap();
        let (head, text) = unpacked(&answer);
        assert!(
            head.contains(&format!("content-encoding: {coding}")),
            "{head}"
        );
        assert_eq!(text, b"one\ntwo\nthree\n", "{coding}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_release_takes_so_many_requests_at_a_time() {
    let proxy = Proxy::start().await;
    let waits = app(|mut stream| async move {
        let _ = read_head(&mut stream).await;
        // For the end of the client.
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let front = Front {
        max_connections: Some(2),
        ..Front::default()
    };
    publish(&proxy, vec![behind(front, &[], waits)]).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        open.push(stream);
    }
    let busy = |count| {
        let client = proxy.client.clone();
        soon(async move || client.stats().await.unwrap()[0].in_flight == count)
    };
    assert!(busy(2).await);
    let more = proxy.get("/").await;
    assert!(more.starts_with("HTTP/1.1 503 "), "{more}");
    assert!(more.to_lowercase().contains("\r\nretry-after: "), "{more}");
    drop(open);
    assert!(busy(0).await, "and room is made");
    proxy.stop().await;
}

#[tokio::test]
async fn slow_uploads_that_are_taken_in_leave_room_for_others() {
    let proxy = Proxy::start().await;
    let front = Front {
        max_connections: Some(2),
        buffer_requests: Some(1 << 10),
        ..Front::default()
    };
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let answers = says(ok, std::time::Duration::ZERO).await;
    publish(&proxy, vec![behind(front, &[], answers)]).await;
    let mut uploads = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let request = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nslow";
        stream.write_all(request.as_bytes()).await.unwrap();
        uploads.push(stream);
    }
    let client = proxy.client.clone();
    assert!(soon(async move || client.stats().await.unwrap()[0].in_flight == 4).await);
    let other = get(&proxy, "a.test", "/", "").await;
    assert!(other.starts_with("http/1.1 200 "), "{other}");
    drop(uploads);
    let client = proxy.client.clone();
    assert!(soon(async move || client.stats().await.unwrap()[0].in_flight == 0).await);
    proxy.stop().await;
}

#[tokio::test]
async fn the_log_has_what_an_app_wants_and_the_client_that_a_trusted_proxy_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let log = file.clone();
    let proxy = Proxy::start_with(|options| {
        options.access_log = Some(log);
        options.trusted = vec!["127.0.0.0/8".parse().unwrap()];
        options.client_ip_header = Some("cf-connecting-ip".parse().unwrap());
    })
    .await;
    let front = Front {
        deny: vec!["192.0.2.0/24".parse().unwrap()],
        access_log: Some(Logged {
            headers: vec!["user-agent".into(), "x-none".into()],
            except: vec![PathPattern::parse("/metrics*").unwrap()],
        }),
        ..Front::default()
    };
    publish(&proxy, vec![behind(front, &[], mirror().await)]).await;
    let fields = "User-Agent: tester\r\nCookie: secret\r\nX-Forwarded-For: 198.51.100.1\r\n";
    for (path, from, status) in [
        ("/metrics/x", "203.0.113.1", 200),
        ("/denied", "192.0.2.7", 403),
        ("/last", "203.0.113.1", 200),
    ] {
        let fields = format!("{fields}CF-Connecting-IP: {from}\r\n");
        let answer = get(&proxy, "a.test", path, &fields).await;
        assert!(
            answer.starts_with(&format!("http/1.1 {status} ")),
            "{answer}"
        );
    }
    let lines = async || std::fs::read_to_string(&file).is_ok_and(|text| text.contains("/last"));
    assert!(soon(lines).await);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        !text.contains("/metrics") && !text.contains("secret"),
        "{text}"
    );
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(
        (&lines[0]["client"], &lines[1]["client"]),
        (&"192.0.2.7".into(), &"203.0.113.1".into())
    );
    assert_eq!(
        lines[1]["headers"],
        serde_json::json!({ "user-agent": "tester" })
    );
    proxy.stop().await;
}

#[tokio::test]
async fn both_families_come_in_by_one_address_and_are_shown_as_they_are() {
    let proxy = Proxy::start_with(|options| options.http = "[::]:0".parse().unwrap()).await;
    let front = Front {
        deny: vec!["::1/128".parse().unwrap()],
        ..Front::default()
    };
    let mut open = behind(Front::default(), &["open.test"], mirror().await);
    open.app = "open".into();
    let target = open.shares[0].targets[0];
    publish(&proxy, vec![open, behind(front, &["four.test"], target)]).await;
    for (host, forwarded) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        let connected = TcpStream::connect((host, proxy.address.port())).await;
        let Ok(mut stream) = connected else {
            assert_eq!(host, "::1", "this machine has no IPv6");
            continue;
        };
        let request = "GET / HTTP/1.1\r\nHost: open.test\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let told = format!("\r\nx-forwarded-for: {forwarded}\r\n");
        assert!(answer.to_lowercase().contains(&told), "{answer}");
        let mut stream = TcpStream::connect((host, proxy.address.port()))
            .await
            .unwrap();
        let request = request.replace("open.test", "four.test");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = if host == "::1" { "403" } else { "200" };
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    proxy.stop().await;
}

#[tokio::test]
async fn who_has_to_name_themselves_comes_in_by_the_right_password_alone() {
    let proxy = Proxy::start_with(|options| {
        options.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let user = |name: &str, password: &str| User {
        name: name.into(),
        hash: bcrypt::hash(password, 4).unwrap(),
    };
    let guarded = |users: Vec<User>| Front {
        basic_auth: Some(BasicAuth {
            users,
            except: ["/up", "/hooks/*"]
                .map(|it| PathPattern::parse(it).unwrap())
                .into(),
        }),
        ..Front::default()
    };
    let target = mirror().await;
    let users = vec![user("ann", "s:cret"), user("bob", "other")];
    publish(&proxy, vec![behind(guarded(users), &[], target)]).await;
    let says = |text: &str, from: &str| {
        let text = STANDARD.encode(text);
        format!("Authorization: Basic {text}\r\nX-Forwarded-For: {from}\r\n")
    };
    let asked = get(&proxy, "a.test", "/", "").await;
    assert!(asked.starts_with("http/1.1 401 "), "{asked}");
    let realm = "\r\nwww-authenticate: basic realm=\"app\", charset=\"utf-8\"\r\n";
    assert!(asked.contains(realm), "{asked}");
    for (path, status) in [
        ("/up", 200),
        ("/hooks/a/b", 200),
        ("/up/", 401),
        ("/hooks/../admin", 401),
        ("/hooks/%2e%2e/admin", 401),
        ("/hooks//admin", 401),
    ] {
        let answer = get(&proxy, "a.test", path, "").await;
        assert!(
            answer.starts_with(&format!("http/1.1 {status} ")),
            "{path}: {answer}"
        );
    }
    for right in ["ann:s:cret", "bob:other", "ann:s:cret"] {
        let answer = get(&proxy, "a.test", "/", &says(right, "192.0.2.1")).await;
        assert!(answer.starts_with("http/1.1 200 "), "{answer}");
    }
    for wrong in ["ann:other", "bob:s:cret", "eve:other", "ann:"] {
        let answer = get(&proxy, "a.test", "/", &says(wrong, "192.0.2.2")).await;
        assert!(answer.starts_with("http/1.1 401 "), "{wrong}: {answer}");
    }
    // Guessing ends, also with a right one that is not known yet; others still come in.
    for _ in 0..6 {
        get(&proxy, "a.test", "/", &says("ann:guess", "192.0.2.2")).await;
    }
    let guessed = get(&proxy, "a.test", "/", &says("ann:guess", "192.0.2.2")).await;
    assert!(guessed.starts_with("http/1.1 429 "), "{guessed}");
    assert!(guessed.contains("\r\nretry-after: "), "{guessed}");
    let other = get(&proxy, "a.test", "/", &says("ann:guess", "192.0.2.3")).await;
    assert!(other.starts_with("http/1.1 401 "), "{other}");
    let known = get(&proxy, "a.test", "/", &says("ann:s:cret", "192.0.2.2")).await;
    assert!(known.starts_with("http/1.1 200 "), "{known}");
    // A new password ends the old one at once, and without any user nobody comes in.
    let table = |generation, users| {
        let route = Route {
            generation,
            ..behind(guarded(users), &[], target)
        };
        Table::new(generation, vec![route])
    };
    let users = vec![user("ann", "new")];
    proxy.client.publish(&table(2, users)).await.unwrap();
    for (text, status) in [("ann:s:cret", 401), ("ann:new", 200)] {
        let answer = get(&proxy, "a.test", "/", &says(text, "192.0.2.4")).await;
        assert!(
            answer.starts_with(&format!("http/1.1 {status} ")),
            "{answer}"
        );
    }
    proxy.client.publish(&table(3, Vec::new())).await.unwrap();
    let nobody = get(&proxy, "a.test", "/", &says("ann:new", "192.0.2.4")).await;
    assert!(nobody.starts_with("http/1.1 401 "), "{nobody}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_is_answered_from_its_file_and_everything_else_redirected() {
    let proxy = Proxy::start_with(|options| {
        options.https = Some("127.0.0.1:0".parse().unwrap());
        options.trusted = vec!["127.0.0.1/32".parse().unwrap()];
        certify(
            &options.data_dir.join("acme/certificates"),
            "a.pem",
            "a.test",
        );
    })
    .await;
    let route = Route {
        policy: Policy {
            https_redirect: true,
            ..Policy::default()
        },
        ..route("app", 1, &[mirror().await])
    };
    publish(&proxy, vec![route]).await;
    let port = proxy.https.unwrap().port();
    let answer = get(&proxy, "a.test", "/x", "").await;
    assert!(answer.starts_with("http/1.1 308 "), "{answer}");
    let to = format!("\r\nlocation: https://a.test:{port}/x\r\n");
    assert!(answer.contains(&to), "{answer}");
    // Where TLS has ended already, and where there is no certificate.
    let secure = get(&proxy, "a.test", "/x", "X-Forwarded-Proto: https\r\n").await;
    assert!(secure.starts_with("http/1.1 200 "), "{secure}");
    assert!(!secure.contains("x-forwarded-port: 80"), "{secure}");
    let other = get(&proxy, "b.test", "/x", "").await;
    assert!(other.starts_with("http/1.1 200 "), "{other}");
    // Nobody tells the proxy of the answer, as when it has just taken over.
    let challenges = proxy.folder.join("acme/challenges");
    std::fs::create_dir_all(&challenges).unwrap();
    std::fs::write(challenges.join("tok_en-1"), "tok_en-1.thumb").unwrap();
    let path = "/.well-known/acme-challenge/tok_en-1";
    for host in ["a.test", "nobody.test"] {
        let answer = get(&proxy, host, path, "").await;
        assert!(answer.starts_with("http/1.1 200 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\ntok_en-1.thumb"), "{answer}");
    }
    // Another one's is the app's.
    let answer = get(&proxy, "b.test", "/.well-known/acme-challenge/other", "").await;
    assert!(
        answer.contains("get /.well-known/acme-challenge/other"),
        "{answer}"
    );
    proxy.stop().await;
}

#[tokio::test]
async fn a_response_may_have_many_fields_and_one_that_is_too_long_is_counted() {
    let proxy = Proxy::start().await;
    let many = "Set-Cookie: a=b\r\n".repeat(150);
    let many = format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n");
    let many = says(String::leak(many), std::time::Duration::ZERO).await;
    proxy.publish(1, &[many]).await;
    let answer = proxy.get("/").await.to_lowercase();
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");
    assert_eq!(answer.matches("set-cookie: a=b\r\n").count(), 150);
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(65 << 10));
    let long = says(String::leak(long), std::time::Duration::ZERO).await;
    proxy.publish(2, &[long]).await;
    let answer = proxy.get("/").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    let stats = proxy.client.stats().await.unwrap();
    let counted = stats.iter().map(|route| route.failures.long_header);
    assert_eq!(counted.sum::<u64>(), 1, "{stats:?}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sslscan_has_nothing_to_complain_about_and_a_client_without_a_name_gets_the_default() {
    let Some(sslscan) = tool::find("sslscan", "sslscan") else {
        return;
    };
    let proxy = Proxy::start_with(|options| {
        options.https = Some("127.0.0.1:0".parse().unwrap());
        certify(&options.certificates, "default.pem", "z.test");
        certify(&options.certificates, "a.pem", "a.test");
    })
    .await;
    let address = proxy.https.unwrap().to_string();
    let scan = async |name: &str| {
        let mut command = tokio::process::Command::new(&sslscan);
        command.args(["--no-colour", "--no-failed"]);
        if !name.is_empty() {
            command.arg(format!("--sni-name={name}"));
        }
        tool::output(command.arg(&address)).await.1
    };
    let text = scan("a.test").await;
    for line in [
        "SSLv2     disabled",
        "SSLv3     disabled",
        "TLSv1.0   disabled",
        "TLSv1.1   disabled",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    for line in ["TLSv1.2   enabled", "TLSv1.3   enabled"] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let ciphers = ["Preferred", "Accepted"];
    let accepted = text.lines();
    let accepted = accepted.filter(|line| ciphers.iter().any(|word| line.starts_with(word)));
    for line in accepted {
        assert!(
            !line.contains("CBC") && !line.contains("RC4") && !line.contains("NULL"),
            "{line}"
        );
        assert!(line.contains("GCM") || line.contains("CHACHA20"), "{line}");
    }
    assert!(
        !text.contains("vulnerable to heartbleed") || text.contains("not vulnerable"),
        "{text}"
    );
    assert!(text.contains("DNS:a.test"), "{text}");
    // By its address it sends no name.
    let text = scan("").await;
    assert!(text.contains("DNS:z.test"), "{text}");
    proxy.stop().await;
}
