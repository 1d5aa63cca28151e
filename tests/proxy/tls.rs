//! TLS with certificates from files, and HTTP/2 in, by ALPN and in the clear.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::proxy::{Proxy, app, read_head, route};
use crate::support::wait::soon;
use crate::version::App;
use bytes::Bytes;
use cutover::proxy::front::Front;
use cutover::proxy::table::Table;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Writes a new certificate for `name` as `file.pem` and `file.key`.
fn certify(folder: &Path, file: &str, name: &str) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec![name.into()]).unwrap();
    let key = made.signing_key.serialize_pem();
    std::fs::write(folder.join(format!("{file}.key")), key).unwrap();
    std::fs::write(folder.join(format!("{file}.pem")), made.cert.pem()).unwrap();
    CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap()
}

async fn connect(
    proxy: &Proxy,
    name: &str,
    trusted: &CertificateDer<'static>,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(proxy.https.unwrap()).await.unwrap();
    handshake(stream, name, trusted, alpn).await
}

async fn handshake(
    stream: TcpStream,
    name: &str,
    trusted: &CertificateDer<'static>,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|a| a.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_string()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

async fn start(folder: &Path) -> Proxy {
    let certificates = folder.to_path_buf();
    let proxy = Proxy::start_with(|options| {
        options.https = Some("127.0.0.1:0".parse().unwrap());
        options.certificates = certificates;
    })
    .await;
    let app = App::start(1).await;
    proxy.publish(1, &[app.address]).await;
    proxy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_listener_has_its_own_proxy_protocol() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = certify(folder.path(), "a", "a.test");
    let certificates = folder.path().to_path_buf();
    let proxy = Proxy::start_with(|options| {
        options.https = Some("127.0.0.1:0".parse().unwrap());
        options.certificates = certificates;
        options.proxy_protocol_tls = true;
    })
    .await;
    proxy.publish(1, &[App::start(1).await.address]).await;
    assert!(proxy.get("/").await.starts_with("HTTP/1.1 200 "));
    connect(&proxy, "a.test", &trusted, &[]).await.unwrap_err();
    let mut stream = TcpStream::connect(proxy.https.unwrap()).await.unwrap();
    let header = b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n";
    stream.write_all(header).await.unwrap();
    let mut stream = handshake(stream, "a.test", &trusted, &[]).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{answer:?}");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificate_is_the_one_of_the_name_asked_for_and_follows_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let one = certify(folder, "one", "one.test");
    let wild = certify(folder, "wild", "*.two.test");
    let proxy = start(folder).await;
    let mut stream = connect(&proxy, "one.test", &one, &[]).await.unwrap();
    connect(&proxy, "a.two.test", &wild, &[]).await.unwrap();
    connect(&proxy, "a.b.two.test", &wild, &[])
        .await
        .unwrap_err();
    connect(&proxy, "three.test", &one, &[]).await.unwrap_err();

    let request = b"GET / HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{answer:?}");

    let renewed = certify(folder, "one", "one.test");
    let served = async || connect(&proxy, "one.test", &renewed, &[]).await.is_ok();
    assert!(soon(served).await, "the old one is served");
    // A broken file does not take the name away.
    std::fs::write(folder.join("wild.pem"), "not a certificate").unwrap();
    certify(folder, "three", "three.test");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_http2_requests_share_a_connection_and_leave_it_at_the_drain() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = certify(folder.path(), "a", "a.test");
    let proxy = start(folder.path()).await;
    let stream = connect(&proxy, "a.test", &trusted, &["h2"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .unwrap();
    let connection = tokio::spawn(connection);
    let ask = |path: &str| {
        let request = Request::post(format!("https://a.test{path}"))
            .body(Full::from("body"))
            .unwrap();
        let answer = sender.clone().send_request(request);
        async move {
            let answer = answer.await.unwrap();
            assert_eq!(
                (answer.status(), answer.version()),
                (StatusCode::OK, Version::HTTP_2)
            );
            answer.into_body().collect().await.unwrap().to_bytes()
        }
    };
    let all = (0..50).map(|n| ask(if n % 5 == 0 { "/slow" } else { "/" }));
    let all = futures_util::future::join_all(all);
    let next = App::start(2).await;
    let switch = async {
        // Until all of them have come.
        let came = async || {
            let stats = proxy.client.stats().await.unwrap();
            stats[0].requests + stats[0].in_flight
        };
        assert!(soon(async || came().await == 50).await);
        proxy.publish(2, &[next.address]).await;
        let limit = Duration::from_secs(5);
        proxy.client.drain("app", 2, limit, limit).await.unwrap()
    };
    let (bodies, receipt) = tokio::join!(all, switch);
    assert!(bodies.iter().all(|body| body == "1"), "{bodies:?}");
    assert_eq!(receipt.failed, 0, "{receipt:?}");
    assert_eq!(ask("/").await, "2");
    proxy.stop().await;
    drop(sender);
    connection.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_in_the_clear_reaches_an_http1_app_with_one_cookie_line_and_its_host() {
    let proxy = Proxy::start().await;
    let mirror = app(|mut stream| async move {
        let head = read_head(&mut stream).await;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{head}",
            head.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    proxy.publish(1, &[mirror]).await;
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://a.test/x?y")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Empty::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let head = answer.into_body().collect().await.unwrap().to_bytes();
    let head = String::from_utf8_lossy(&head).to_lowercase();
    assert!(head.starts_with("get /x?y http/1.1\r\n"), "{head}");
    for line in ["\r\nhost: a.test\r\n", "\r\ncookie: a=1; b=2\r\n"] {
        assert!(head.contains(line), "{line:?} in {head}");
    }
    proxy.stop().await;
}

/// GETs `/` over TLS.
async fn secure(proxy: &Proxy, trusted: &CertificateDer<'static>) -> String {
    let mut stream = connect(proxy, "a.test", trusted, &[]).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let read = tokio::time::timeout(Duration::from_secs(10), read).await;
    let _ = read.expect("an answer");
    String::from_utf8_lossy(&answer).to_lowercase()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsers_are_told_over_tls_to_stay_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = certify(folder.path(), "a", "a.test");
    let proxy = start(folder.path()).await;
    let mut route = route("app", 2, &[App::start(1).await.address]);
    route.policy.front = Some(Arc::new(Front {
        hsts: Some("max-age=31536000".into()),
        ..Front::default()
    }));
    route.policy.https_redirect = false;
    let table = Table::new(2, vec![route]);
    proxy.client.publish(&table).await.unwrap();
    let told = "\r\nstrict-transport-security: max-age=31536000\r\n";
    let answer = secure(&proxy, &trusted).await;
    assert!(answer.contains(told), "{answer}");
    let answer = proxy.get("/").await.to_lowercase();
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");
    assert!(!answer.contains("strict-transport-security"), "{answer}");
    proxy.stop().await;
}

/// A pipe that nobody writes to stands for a disk that hangs: whoever opens it waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_whose_disk_hangs_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = certify(folder.path(), "a", "a.test");
    let proxy = start(folder.path()).await;
    let silent = app(|mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    });
    let mut route = route("app", 2, &[silent.await]);
    route.policy.first_byte_timeout_ms = 300;
    route.policy.https_redirect = false;
    let table = Table::new(2, vec![route]);
    proxy.client.publish(&table).await.unwrap();

    let pipe = folder.path().join("hung.pem");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    // An unknown challenge causes the files to be read; it is the app's, which says nothing in time.
    let answer = proxy.get("/.well-known/acme-challenge/unknown").await;
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    for _ in 0..3 {
        let answer = proxy.get("/.well-known/acme-challenge/unknown").await;
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
        let answer = secure(&proxy, &trusted).await;
        assert!(answer.starts_with("http/1.1 504 "), "{answer}");
    }
    proxy.publish(3, &[App::start(3).await.address]).await;
    let answer = secure(&proxy, &trusted).await;
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");

    // The disk answers again.
    let write = std::fs::OpenOptions::new().write(true).open(&pipe);
    std::fs::remove_file(&pipe).unwrap();
    drop(write.unwrap());
    let second = certify(folder.path(), "b", "b.test");
    let served = soon(async || connect(&proxy, "b.test", &second, &[]).await.is_ok());
    assert!(served.await);
    proxy.stop().await;
}
