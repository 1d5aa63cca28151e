//! Apps that speak HTTP/2: gRPC of all four kinds through the proxy, over a switch, and what is sent
//! again when such an app says that it has not processed a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::time::Duration;

use crate::grpc_app::{Caller, GrpcApp};
use crate::proxy::{Proxy, route};
use crate::version::App;
use cutover::proxy::table::Table;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;

async fn publish(proxy: &Proxy, generation: u64, target: SocketAddr) {
    let mut one = route("app", generation, &[target]);
    one.policy.h2c = true;
    let table = Table::new(generation, vec![one]);
    proxy.client.publish(&table).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_four_kinds_of_calls_go_through_with_their_trailers() {
    let proxy = Proxy::start().await;
    let app = GrpcApp::start(1).await;
    publish(&proxy, 1, app.address).await;
    let mut caller = Caller::to(proxy.address).await;
    assert_eq!(caller.unary("hello").await.unwrap(), "1 hello");
    let large = "x".repeat(1 << 20);
    assert_eq!(caller.unary(&large).await.unwrap(), format!("1 {large}"));
    assert_eq!(caller.collect(&["a", "b", "c"]).await.unwrap(), "1 abc");

    let mut numbers = caller.count(3).await.unwrap();
    for n in 0..3 {
        let message = numbers.message().await.unwrap();
        assert_eq!(message, Some(format!("1 {n}")));
    }
    let over = numbers.message().await.unwrap_err();
    assert_eq!(over.code(), Code::ResourceExhausted);
    assert_eq!(over.message(), "that was all");
    assert_eq!(over.metadata().get("x-last").unwrap(), "3");

    let (say, said) = channel();
    let mut back = caller.chat(said).await.unwrap();
    for text in ["one", "two"] {
        // Each answer comes before the next question is asked.
        say.send(text.into()).unwrap();
        assert_eq!(back.message().await.unwrap(), Some(format!("1 {text}")));
    }
    drop(say);
    assert_eq!(back.message().await.unwrap(), None);
    let stats = &proxy.client.stats().await.unwrap()[0];
    assert_eq!(stats.requests, 5, "{stats:?}");
    assert_eq!(
        stats.failures.total() + stats.failures.client,
        0,
        "{stats:?}"
    );
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_come_over_tls_too() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["a.test".into()]).unwrap();
    let key = made.signing_key.serialize_pem();
    std::fs::write(folder.path().join("a.key"), key).unwrap();
    std::fs::write(folder.path().join("a.pem"), made.cert.pem()).unwrap();
    let certificates = folder.path().to_path_buf();
    let proxy = Proxy::start_with(|options| {
        options.https = Some("127.0.0.1:0".parse().unwrap());
        options.certificates = certificates;
    })
    .await;
    publish(&proxy, 1, GrpcApp::start(1).await.address).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
    let https = proxy.https.unwrap();
    let connector = tower::service_fn(move |_: http::Uri| {
        let tls = tls.clone();
        async move {
            let stream = TcpStream::connect(https).await?;
            let name = rustls::pki_types::ServerName::try_from("a.test").unwrap();
            let stream = tls.connect(name, stream).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let endpoint = tonic::transport::Channel::from_static("http://a.test");
    let channel = endpoint.connect_with_connector(connector).await.unwrap();
    let mut caller = Caller::new(channel);
    assert_eq!(caller.unary("hello").await.unwrap(), "1 hello");
    let mut numbers = caller.count(1).await.unwrap();
    assert_eq!(numbers.message().await.unwrap().unwrap(), "1 0");
    let over = numbers.message().await.unwrap_err();
    assert_eq!(over.code(), Code::ResourceExhausted);
    proxy.stop().await;
}

/// A stream of what is sent into it.
fn channel() -> (
    tokio::sync::mpsc::UnboundedSender<String>,
    impl futures_util::Stream<Item = String> + Send + 'static,
) {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    (sender, stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_lets_streams_finish_and_no_call_fails() {
    let proxy = Proxy::start().await;
    let old = GrpcApp::start(1).await;
    publish(&proxy, 1, old.address).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (address, stop) = (proxy.address, stop.clone());
            tokio::spawn(async move {
                let mut caller = Caller::to(address).await;
                let mut answers = Vec::new();
                while !stop.load(SeqCst) {
                    answers.push(caller.unary("x").await);
                }
                answers
            })
        })
        .collect();
    let mut caller = Caller::to(proxy.address).await;
    let (say, said) = channel();
    let mut chat = caller.chat(said).await.unwrap();
    say.send("before".into()).unwrap();
    assert_eq!(chat.message().await.unwrap().unwrap(), "1 before");
    let mut numbers = caller.count(40).await.unwrap();

    let new = GrpcApp::start(2).await;
    publish(&proxy, 2, new.address).await;
    assert_eq!(caller.unary("after").await.unwrap(), "2 after");
    let client = proxy.client.clone();
    let limit = Duration::from_secs(10);
    let drain = tokio::spawn(async move { client.drain("app", 2, limit, limit).await });
    say.send("still".into()).unwrap();
    assert_eq!(chat.message().await.unwrap().unwrap(), "1 still");
    assert!(!drain.is_finished());
    drop(say);
    assert_eq!(chat.message().await.unwrap(), None);
    for n in 0..40 {
        assert_eq!(numbers.message().await.unwrap().unwrap(), format!("1 {n}"));
    }
    let over = numbers.message().await.unwrap_err();
    assert_eq!(over.code(), Code::ResourceExhausted);
    let receipt = drain.await.unwrap().unwrap();
    assert_eq!(receipt.failed, 0, "{receipt:?}");
    assert!(receipt.drained >= 2, "{receipt:?}");
    old.kill().await;
    assert_eq!(caller.unary("then").await.unwrap(), "2 then");
    stop.store(true, SeqCst);
    for load in load {
        let answers = load.await.unwrap();
        let wrong: Vec<_> = answers.iter().filter_map(|a| a.as_ref().err()).collect();
        assert!(wrong.is_empty() && answers.len() > 5, "{wrong:?}");
    }
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_outlasts_the_drain_is_cut_off_and_counted() {
    let proxy = Proxy::start().await;
    let (old, new) = (GrpcApp::start(1).await, GrpcApp::start(2).await);
    publish(&proxy, 1, old.address).await;
    let mut caller = Caller::to(proxy.address).await;
    let (say, said) = channel();
    let mut chat = caller.chat(said).await.unwrap();
    say.send("x".into()).unwrap();
    chat.message().await.unwrap();
    publish(&proxy, 2, new.address).await;
    let short = Duration::from_millis(100);
    let receipt = proxy.client.drain("app", 2, short, short).await.unwrap();
    assert_eq!((receipt.drained, receipt.failed), (1, 1), "{receipt:?}");
    assert!(chat.message().await.is_err());
    assert_eq!(caller.unary("next").await.unwrap(), "2 next");
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_may_speak_different_versions_and_a_switch_between_them_loses_nothing() {
    let proxy = Proxy::start().await;
    let publish_as = async |generation, address: SocketAddr, h2c| {
        let mut one = route("app", generation, &[address]);
        one.policy.h2c = h2c;
        let table = Table::new(generation, vec![one]);
        proxy.client.publish(&table).await.unwrap();
    };
    let mut app = App::speaking(1, false).await;
    publish_as(1, app.address, false).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = |line: &'static str| tokio::spawn(ask(proxy.address, line, stop.clone()));
    let gets = [load("GET /"), load("GET /slow"), load("GET /")];
    let posts = [load("POST /"), load("POST /slow")];
    let mut applied = 0;
    for generation in 2..10 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        let h2c = generation % 2 == 0;
        let next = App::speaking(generation, h2c).await;
        publish_as(generation, next.address, h2c).await;
        assert!(proxy.get("/").await.contains(&generation.to_string()));
        let limit = Duration::from_secs(5);
        let drain = proxy.client.drain("app", generation, limit, limit);
        let receipt = drain.await.unwrap();
        assert_eq!(receipt.failed, 0, "{receipt:?}");
        let old = std::mem::replace(&mut app, next);
        applied += old.posts.load(SeqCst);
        old.kill().await;
    }
    stop.store(true, SeqCst);
    for task in gets {
        assert!(task.await.unwrap() > 2);
    }
    let mut posted = 0;
    for task in posts {
        posted += task.await.unwrap();
    }
    assert_eq!(applied + app.posts.load(SeqCst), posted, "every POST once");
    proxy.stop().await;
}

/// Asks again and again until told to stop, and says how often; each answer has to be a success.
async fn ask(proxy: SocketAddr, line: &str, stop: Arc<AtomicBool>) -> u64 {
    let request = format!(
        "{line} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: 4\r\n\r\nonce"
    );
    let mut asked = 0;
    while !stop.load(SeqCst) {
        let mut stream = TcpStream::connect(proxy).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{line}: {answer:?}");
        asked += 1;
    }
    asked
}

/// How the first connections of [`moody`] end, each after the request's head has come.
#[derive(Clone, Copy)]
enum Mood {
    /// GOAWAY: no stream of it was processed.
    GoAway,
    /// RST_STREAM: REFUSED_STREAM.
    Refuse,
    /// Nothing is said.
    Cut,
}

/// An app whose first connection ends badly, and that serves after that; it counts what it serves.
async fn moody(mood: Mood) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let counted = served.clone();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // The preface, the settings and the request's head, which has stream 1.
        let mut got: Vec<u8> = Vec::new();
        let head = [0x01_u8, 0x04, 0, 0, 0, 1];
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        stream.write_all(&settings).await.unwrap();
        while !got.windows(6).any(|part| part == head) {
            let mut buffer = [0; 1024];
            let n = stream.read(&mut buffer).await.unwrap();
            assert!(n > 0, "a head: {got:?}");
            got.extend(&buffer[..n]);
        }
        let last: &[u8] = match mood {
            Mood::GoAway => &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            Mood::Refuse => &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7],
            Mood::Cut => &[],
        };
        stream.write_all(last).await.unwrap();
        let _open = (!matches!(mood, Mood::Cut)).then_some(stream);
        while let Ok((stream, _)) = listener.accept().await {
            let counted = counted.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut answer))) = connection.accept().await {
                    let counted = counted.clone();
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        let mut text = Vec::new();
                        while let Some(Ok(data)) = body.data().await {
                            text.extend(&data);
                        }
                        counted.fetch_add(1, SeqCst);
                        let mut body = answer
                            .send_response(http::Response::new(()), false)
                            .unwrap();
                        body.send_data(text.into(), true).unwrap();
                    });
                }
            });
        }
    });
    (address, served)
}

#[tokio::test]
async fn only_what_the_app_says_it_has_not_processed_is_sent_again() {
    let post =
        "POST /p HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: 4\r\n\r\nonce";
    for (mood, status, served, retried) in [
        (Mood::GoAway, 200, 1, 1),
        (Mood::Refuse, 200, 1, 1),
        (Mood::Cut, 502, 0, 0),
    ] {
        let proxy = Proxy::start().await;
        let (address, count) = moody(mood).await;
        publish(&proxy, 1, address).await;
        let answer = proxy.raw(post).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{answer}");
        assert!(status != 200 || answer.contains("\r\nonce\r\n"), "{answer}");
        assert_eq!(count.load(SeqCst), served);
        let stats = &proxy.client.stats().await.unwrap()[0];
        assert_eq!(stats.retried, retried, "{stats:?}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn http1_clients_reach_an_http2_app_too_and_its_host_is_the_authority() {
    let proxy = Proxy::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _): (TcpStream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut answer))) = connection.accept().await {
            assert!(!request.headers().contains_key("host"));
            let text = format!("{} {:?}", request.uri(), request.headers().get("te"));
            let mut body = answer
                .send_response(http::Response::new(()), false)
                .unwrap();
            body.send_data(text.into(), true).unwrap();
        }
    });
    publish(&proxy, 1, address).await;
    let answer = proxy
        .raw(
            "GET /x?y=1 HTTP/1.1\r\nHost: a.test:8080\r\nTE: trailers, gzip\r\n\
             Connection: close, te, upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("http://a.test:8080/x?y=1 Some(\"trailers\")"),
        "{answer}"
    );
    proxy.stop().await;
}

/// A client that reads nothing fills its own stream's window and no other's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_take_nothing_hold_up_nobody_who_shares_the_apps_connection() {
    let proxy = Proxy::start_with(|options| options.threads = 1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, SeqCst);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut answer))) = connection.accept().await {
                    let mut body = answer
                        .send_response(http::Response::new(()), false)
                        .unwrap();
                    let size = match request.uri().path() {
                        // More than the sockets in between hold.
                        "/huge" => 16 << 20,
                        _ => 8,
                    };
                    body.send_data(vec![b'x'; size].into(), true).unwrap();
                }
            });
        }
    });
    publish(&proxy, 1, address).await;
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let request = b"GET /huge HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        stalled.push(stream);
    }
    for _ in 0..20 {
        assert!(proxy.get("/small").await.contains("xxxxxxxx"));
    }
    assert_eq!(connections.load(SeqCst), 1);
    drop(stalled);
    proxy.stop().await;
}
