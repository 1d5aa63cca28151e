//! Byte for byte: what a client may send, and what it gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Duration;

use crate::proxy::{Proxy, app, read_head, route, says};
use crate::support::wait::{not_yet, soon};
use cutover::proxy::Limits;
use cutover::proxy::table::Table;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An app that answers with the head it got, and closes after each answer.
async fn mirror() -> std::net::SocketAddr {
    app(|mut stream| async move {
        let head = read_head(&mut stream).await;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{head}",
            head.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await
}

async fn with_mirror() -> Proxy {
    let proxy = Proxy::start().await;
    proxy.publish(1, &[mirror().await]).await;
    proxy
}

#[tokio::test]
async fn what_could_be_read_two_ways_is_refused_and_the_connection_closed() {
    let proxy = with_mirror().await;
    let host = "Host: a\r\n";
    for request in [
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\n{host}{host}\r\n"),
        format!("GET / HTTP/1.1\n{host}\r\n"),
        "GET / HTTP/1.1\r\nHost: a\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\n{host}X: 1\r\n 2\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}X : 1\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}X: \0\r\n\r\n"),
        format!("GE(T / HTTP/1.1\r\n{host}\r\n"),
        format!("GET / HTTP/1.1 \r\n{host}\r\n"),
        "GET /\r\n\r\n".to_owned(),
        // What only other requests may ask for, or none.
        format!("GET * HTTP/1.1\r\n{host}\r\n"),
        format!("GET ftp://a/ HTTP/1.1\r\n{host}\r\n"),
        format!("GET a:80 HTTP/1.1\r\n{host}\r\n"),
        "GET / HTTP/1.1\r\nHost: a:xyz\r\n\r\n".to_owned(),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 9223372036854775808\r\n\r\nabc"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 18446744073709551613\r\n\r\nabc"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: +3\r\n\r\nabc"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: -3\r\n\r\nabc"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 3, 3\r\n\r\nabc"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
        format!(
            "POST / HTTP/1.1\r\n{host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
             0\r\n\r\n"
        ),
        format!(
            "POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n\
             0\r\n\r\n"
        ),
        format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip\r\n\r\n"),
        format!("POST / HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ] {
        let answer = proxy.raw(&request).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 "),
            "{request:?}: {answer:?}"
        );
        assert!(
            answer.to_lowercase().contains("\r\nconnection: close\r\n"),
            "{answer:?}"
        );
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer:?}");
    }
    let stats = proxy.client.stats().await.unwrap();
    assert_eq!(stats[0].requests, 0, "none of them reached the app");
    proxy.stop().await;
}

#[tokio::test]
async fn the_app_is_told_who_asks_and_nothing_of_the_hop() {
    let proxy = with_mirror().await;
    let answer = proxy
        .raw(
            "GET /x?y HTTP/1.1\r\nHost: A.test:81\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\
             Keep-Alive: timeout=1\r\nProxy-Connection: close\r\nTE: gzip\r\nX-End: 1\r\n\
             X-Forwarded-For: 6.6.6.6\r\nUpgrade: h2c\r\n\r\n",
        )
        .await;
    let text = answer.to_lowercase();
    let (_, head) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("get /x?y http/1.1\r\n"), "{head}");
    for there in [
        "\r\nhost: a.test:81\r\n",
        "\r\nx-end: 1\r\n",
        "\r\nx-forwarded-for: 127.0.0.1\r\n",
        "\r\nx-forwarded-proto: http\r\n",
        "\r\nx-forwarded-host: a.test:81\r\n",
    ] {
        assert!(head.contains(there), "{there:?} in {head}");
    }
    for gone in [
        "x-hop",
        "keep-alive",
        "proxy-connection",
        "\r\nte:",
        "upgrade",
        "6.6.6.6",
    ] {
        assert!(!head.contains(gone), "{gone:?} in {head}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_absolute_target_names_the_host_and_a_star_passes() {
    let proxy = with_mirror().await;
    let answer = proxy
        .raw("GET http://b.test/p?q HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .to_lowercase();
    assert!(answer.contains("get /p?q http/1.1\r\n"), "{answer}");
    assert!(answer.contains("\r\nhost: b.test\r\n"), "{answer}");
    let answer = proxy
        .raw("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.contains("OPTIONS * HTTP/1.1\r\n"), "{answer}");
    let answer = proxy.raw("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn unknown_hosts_and_missing_targets_are_told_apart() {
    let proxy = Proxy::start().await;
    assert!(proxy.get("/").await.starts_with("HTTP/1.1 404 "));
    let mut known = route("app", 1, &[]);
    known.hosts = vec!["a.test".into()];
    known.path_prefix = "/app".into();
    let table = Table::new(1, vec![known]);
    proxy.client.publish(&table).await.unwrap();
    let busy = proxy.get("/app").await;
    assert!(busy.starts_with("HTTP/1.1 503 "), "{busy}");
    assert!(busy.contains("\r\nretry-after: "), "{busy}");
    assert!(proxy.get("/other").await.starts_with("HTTP/1.1 404 "));
    let other = "GET /app HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n";
    assert!(proxy.raw(other).await.starts_with("HTTP/1.1 404 "));
    proxy.stop().await;
}

#[tokio::test]
async fn a_page_before_the_body_was_read_says_that_the_connection_ends() {
    let proxy = Proxy::start().await;
    let body = "x".repeat(200_000);
    let request =
        format!("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 200000\r\n\r\n{body}");
    let answer = proxy.raw(&request).await.to_lowercase();
    assert!(answer.starts_with("http/1.1 404 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    let two = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n\
               GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    let answers = proxy.raw(two).await;
    assert_eq!(answers.matches("HTTP/1.1 404 ").count(), 2, "{answers}");
    proxy.stop().await;
}

#[tokio::test]
async fn an_app_that_is_down_or_talks_nonsense_is_named_as_the_cause() {
    let proxy = Proxy::start().await;
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let alive = says(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Duration::ZERO,
    )
    .await;
    for (generation, targets, expected) in [
        (1, vec![gone], "HTTP/1.1 503 "),
        (2, vec![says("", Duration::ZERO).await], "HTTP/1.1 502 "),
        (
            3,
            vec![says("SSH-2.0-x\r\n", Duration::ZERO).await],
            "HTTP/1.1 502 ",
        ),
        // One of two is down: nobody notices.
        (4, vec![gone, alive], "HTTP/1.1 200 "),
    ] {
        proxy.publish(generation, &targets).await;
        let post = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
        let answer = proxy.raw(post).await;
        assert!(answer.starts_with(expected), "{answer}");
    }
    let mut slow = route("app", 5, &[says("", Duration::from_secs(20)).await]);
    slow.policy.first_byte_timeout_ms = 100;
    let table = Table::new(5, vec![slow]);
    proxy.client.publish(&table).await.unwrap();
    assert!(proxy.get("/").await.starts_with("HTTP/1.1 504 "));
    proxy.stop().await;
}

#[tokio::test]
async fn bodies_are_framed_as_they_came_and_capped() {
    let proxy = Proxy::start().await;
    let app = app(|mut stream| async move {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while !all.ends_with(b"END") && !all.ends_with(b"END\r\n0\r\n\r\n") {
            match stream.read(&mut buffer).await {
                Ok(n @ 1..) => all.extend_from_slice(&buffer[..n]),
                _ => return,
            }
        }
        let text = String::from_utf8_lossy(&all).to_lowercase();
        let kind = match text.contains("transfer-encoding: chunked") {
            true => "chunked",
            false => "length",
        };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{kind}",
            kind.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let mut capped = route("app", 1, &[app]);
    capped.policy.max_body = Some(10);
    let table = Table::new(1, vec![capped]);
    proxy.client.publish(&table).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    for (rest, status, end) in [
        ("Content-Length: 3\r\n\r\nEND".into(), 200, "length"),
        (format!("{chunked}3\r\nEND\r\n0\r\n\r\n"), 200, "chunked"),
        ("Content-Length: 11\r\n\r\n12345678901".into(), 413, ""),
        (format!("{chunked}b\r\n12345678901\r\n0\r\n\r\n"), 413, ""),
        (
            "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nEND".into(),
            200,
            "length",
        ),
    ] {
        let answer = proxy.raw(&format!("{head}{rest}")).await;
        let answer = answer
            .strip_prefix("HTTP/1.1 100 Continue\r\n\r\n")
            .unwrap_or(&answer);
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{rest:?}: {answer:?}");
        assert!(answer.ends_with(end), "{rest:?}: {answer:?}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn what_a_client_expects_is_done_or_refused() {
    let proxy = with_mirror().await;
    for (expected, status) in [
        ("100-Continue", "100 Continue"),
        ("200-maybe", "417 Expectation Failed"),
        ("100-continue, x", "417 Expectation Failed"),
    ] {
        let answer = proxy
            .raw(&format!(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: {expected}\r\n\
                 Content-Length: 3\r\n\r\nabc"
            ))
            .await;
        let status = format!("HTTP/1.1 {status}\r\n");
        assert!(answer.starts_with(&status), "{expected:?}: {answer}");
        assert!(!answer.contains("\r\nexpect: "), "{answer}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn head_no_content_and_old_clients() {
    let proxy = Proxy::start().await;
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    proxy.publish(1, &[says(long, Duration::ZERO).await]).await;
    let answer = proxy
        .raw("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.contains("content-length: 5\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    let none = "HTTP/1.1 204 No Content\r\n\r\n";
    proxy.publish(2, &[says(none, Duration::ZERO).await]).await;
    let answer = proxy.get("/").await;
    assert!(answer.starts_with("HTTP/1.1 204 ") && answer.ends_with("\r\n\r\n"));
    // An answer that ends with its connection, for a client that knows no chunks.
    let open = "HTTP/1.0 200 OK\r\n\r\nhello";
    proxy.publish(3, &[says(open, Duration::ZERO).await]).await;
    let answer = proxy.raw("GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("\r\n\r\nhello"));
    assert!(!answer.to_lowercase().contains("chunked"), "{answer}");
    // Hints before the answer are not passed on; the answer is.
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n\
                 HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    proxy.publish(4, &[says(hints, Duration::ZERO).await]).await;
    let answer = proxy.get("/").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"),
        "{answer}"
    );
    proxy.stop().await;
}

#[tokio::test]
async fn long_heads_and_long_targets_have_their_own_answers() {
    let proxy = with_mirror().await;
    for (length, status) in [(60_000, 200), (66_000, 431)] {
        let long = "x".repeat(length);
        let answer = proxy
            .raw(&format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {long}\r\n\r\n"
            ))
            .await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{length}: {answer}");
    }
    let counted = async || proxy.client.stats().await.unwrap()[0].long_requests == 1;
    assert!(soon(counted).await, "for its app");
    for (length, status) in [(16_000, 200), (17_000, 414)] {
        let path = "x".repeat(length);
        let answer = proxy.get(&format!("/{path}")).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{length}: {answer}");
    }
    proxy.stop().await;
}

/// A request with this many header fields and a few more.
fn many(fields: usize, path: &str, last: bool) -> String {
    let fields: String = (0..fields).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let close = if last { "Connection: close\r\n" } else { "" };
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{close}{fields}\r\n")
}

#[tokio::test]
async fn a_request_may_have_many_fields_wherever_it_stands_and_however_it_is_cut() {
    let proxy = with_mirror().await;
    let few = "GET /few HTTP/1.1\r\nHost: a\r\n\r\n";
    let requests = [
        vec![many(150, "/1", true)],
        vec![
            many(101, "/1", false),
            many(300, "/2", false),
            many(99, "/3", true),
        ],
        vec![
            few.to_owned(),
            many(150, "/2", false),
            few.to_owned(),
            many(1_500, "/4", true),
        ],
    ];
    for requests in requests {
        let whole = requests.concat();
        for size in [whole.len(), 1_000, 97] {
            let mut stream = TcpStream::connect(proxy.address).await.unwrap();
            for part in whole.as_bytes().chunks(size) {
                stream.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut answers = String::new();
            stream.read_to_string(&mut answers).await.unwrap();
            let good = answers.matches("HTTP/1.1 200 ").count();
            assert_eq!(good, requests.len(), "{size}: {answers:.2000}");
        }
    }
    // One after the other on a connection that has come to rest in between.
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    for number in 0..3 {
        let request = many(150 << number, "/", false);
        stream.write_all(request.as_bytes()).await.unwrap();
        // The answer's head, and its body, which is the request's.
        let mut answer = String::new();
        while answer.matches("\r\n\r\n").count() < 2 {
            let mut part = [0; 4096];
            let read = stream.read(&mut part).await.unwrap();
            assert!(read > 0, "{answer:.2000}");
            answer += std::str::from_utf8(&part[..read]).unwrap();
        }
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:.2000}");
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn the_limit_of_a_head_can_be_set() {
    let proxy = Proxy::start_with(|options| options.limits.head = 4 << 10).await;
    let target = says(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Duration::ZERO,
    )
    .await;
    proxy.publish(1, &[target]).await;
    for (length, status) in [(3_900, 200), (4_200, 431)] {
        let long = "x".repeat(length);
        let answer = proxy
            .raw(&format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {long}\r\n\r\n"
            ))
            .await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{length}: {answer}");
    }
    let long = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: {}\r\n\r\n",
        "x".repeat(5_000)
    );
    let target = says(String::leak(long), Duration::ZERO).await;
    let mut limited = route("app", 2, &[target]);
    for (generation, limit, status) in [(2, 4 << 10, 502), (3, 8 << 10, 200)] {
        limited.generation = generation;
        limited.policy.header_limit = limit;
        let table = Table::new(generation, vec![limited.clone()]);
        proxy.client.publish(&table).await.unwrap();
        let answer = proxy.get("/").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{limit}: {answer}"
        );
    }
    proxy.stop().await;
}

#[tokio::test]
async fn trailers_pass_where_they_are_announced() {
    let proxy = Proxy::start().await;
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                   2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n";
    proxy
        .publish(1, &[says(chunked, Duration::ZERO).await])
        .await;
    let answer = proxy
        .raw("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n")
        .await
        .to_lowercase();
    assert!(answer.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let proxy = with_mirror().await;
    let answer = proxy
        .raw(
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
             GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
    let at = |path| {
        answer
            .find(path)
            .unwrap_or_else(|| panic!("{path} in {answer}"))
    };
    assert!(at("GET /1") < at("GET /2") && at("GET /2") < at("GET /3"));
    proxy.stop().await;
}

#[tokio::test]
async fn slow_heads_idle_connections_and_stuck_uploads_run_into_their_deadlines() {
    let proxy = Proxy::start_with(|options| {
        options.limits = Limits {
            head_ms: 300,
            idle_ms: 200,
            write_ms: 300,
            ..options.limits
        };
    })
    .await;
    let sink = app(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mut stuck = route("app", 1, &[sink]);
    stuck.policy.body_idle_timeout_ms = 200;
    let table = Table::new(1, vec![stuck]);
    proxy.client.publish(&table).await.unwrap();
    assert_eq!(proxy.raw("").await, "");
    // A byte now and then does not move the deadline of a head.
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let begun = std::time::Instant::now();
    let mut buffer = [0; 1024];
    for byte in b"GET / HTTP/1.1\r\nX-Slow: 1111111111111111111111111111111" {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        let quick = Duration::from_millis(50);
        if let Ok(read) = tokio::time::timeout(quick, stream.read(&mut buffer)).await {
            let _ = read;
            break;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
    let upload = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf";
    let answer = proxy.raw(upload).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    proxy.stop().await;
}

/// By then a connection is put to rest, of which nobody is told: a tenth of a second without a byte,
/// and three sweeps to notice it.
const REST: Duration = Duration::from_millis(500);

/// At rest the proxy keeps next to nothing of a connection.
#[tokio::test]
async fn a_connection_goes_on_after_a_rest() {
    let proxy = with_mirror().await;
    let rest = || tokio::time::sleep(REST);
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let mut buffer = [0; 1024];
    for path in ["/first", "/second", "/third"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        // The byte that ends the rest comes alone.
        stream.write_all(&request.as_bytes()[..1]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(&request.as_bytes()[1..]).await.unwrap();
        let n = stream.read(&mut buffer).await.unwrap();
        let answer = String::from_utf8_lossy(&buffer[..n]);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
        assert!(answer.contains(&format!("GET {path} ")), "{answer:?}");
        rest().await;
    }
    stream.write_all(b"\nGET / HTTP/1.1\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");

    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let _ = stream.read(&mut buffer).await.unwrap();
    rest().await;
    // A proxy that leaves does not wait for it.
    proxy.stop().await;
    assert_eq!(stream.read(&mut buffer).await.unwrap(), 0);
}

/// The trap of keep-alive: a request meets a connection that the app is just closing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_closes_idle_connections_costs_no_get_and_doubles_no_post() {
    let proxy = Proxy::start().await;
    let posts = Arc::new(AtomicU64::new(0));
    let counted = posts.clone();
    let app = app(move |mut stream| {
        let posts = counted.clone();
        async move {
            loop {
                let idle = Duration::from_millis(200);
                let Ok(head) = tokio::time::timeout(idle, read_head(&mut stream)).await else {
                    return;
                };
                if head.is_empty() {
                    return;
                }
                if head.starts_with("POST") {
                    posts.fetch_add(1, SeqCst);
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    proxy.publish(1, &[app]).await;
    let mut posted = 0;
    // Pauses around the app's limit, on both sides of it.
    for pause in (190..=210).chain([40, 60]) {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let (method, body) = match pause % 2 {
            0 => ("GET", ""),
            _ => ("POST", "Content-Length: 0\r\n"),
        };
        posted += pause % 2;
        let answer = proxy
            .raw(&format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{body}\r\n"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{pause}: {answer}");
    }
    assert_eq!(posts.load(SeqCst), posted);
    proxy.stop().await;
}

#[tokio::test]
async fn the_proxy_starts_again_with_the_table_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start_in(folder.path().into(), |_| {}).await;
    proxy.publish(7, &[mirror().await]).await;
    proxy.stop().await;
    let proxy = Proxy::start_in(folder.path().into(), |_| {}).await;
    assert_eq!(proxy.client.hello().await.unwrap().generation, 7);
    assert!(proxy.get("/").await.starts_with("HTTP/1.1 200 "));
    proxy.client.stop().await.unwrap();
    assert!(soon(async || proxy.client.hello().await.is_err()).await);
}

#[tokio::test]
async fn a_balancer_in_front_says_whose_connection_it_is() {
    let proxy = Proxy::start_with(|options| options.proxy_protocol = true).await;
    proxy.publish(1, &[mirror().await]).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let header = "PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n";
    let answer = proxy.raw(&format!("{header}{request}")).await;
    assert!(
        answer.contains("x-forwarded-for: 192.0.2.7\r\n"),
        "{answer}"
    );
    assert_eq!(
        proxy.raw(request).await,
        "",
        "without a header it is closed"
    );

    // Version 2: IPv6 with a field that nobody here reads, and a balancer's own health check.
    let client = "2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap();
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x29".to_vec();
    header.extend(client.octets());
    header.extend([0; 16]);
    header.extend([0, 1, 0, 80, 4, 0, 2, b'h', b'i']);
    let own = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    for (header, address) in [(header, "2001:db8::7"), (own, "127.0.0.1")] {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        // In two parts, as a balancer never sends it.
        stream.write_all(&header[..14]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(&header[14..]).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let line = format!("x-forwarded-for: {address}\r\n");
        assert!(answer.contains(&line), "{answer}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_trusted_proxy_in_front_is_believed() {
    let proxy = Proxy::start_with(|o| o.trusted = vec!["127.0.0.0/8".parse().unwrap()]).await;
    proxy.publish(1, &[mirror().await]).await;
    let answer = proxy
        .raw(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 192.0.2.7\r\n\
             X-Forwarded-Proto: https\r\n\r\n",
        )
        .await;
    let expected = "x-forwarded-for: 192.0.2.7, 127.0.0.1\r\n";
    assert!(answer.contains(expected), "{answer}");
    assert!(answer.contains("x-forwarded-proto: https\r\n"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn one_client_cannot_take_all_connections() {
    let proxy = Proxy::start_with(|options| options.max_per_client = 2).await;
    proxy.publish(1, &[mirror().await]).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(request).await.unwrap();
        // Answered, it has its place. Merely connected, the third could be accepted ahead of it:
        // each thread accepts for itself.
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        held.push(stream);
    }
    let mut third = TcpStream::connect(proxy.address).await.unwrap();
    let limit = Duration::from_secs(5);
    let closed = tokio::time::timeout(limit, third.read(&mut [0; 1])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    drop(held);
    let deadline = std::time::Instant::now() + limit;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    loop {
        let mut again = TcpStream::connect(proxy.address).await.unwrap();
        let _ = again.write_all(request.as_bytes()).await;
        let mut answer = String::new();
        let _ = again.read_to_string(&mut answer).await;
        if answer.starts_with("HTTP/1.1 200 ") {
            break;
        }
        assert!(std::time::Instant::now() < deadline);
    }
    proxy.stop().await;
}

#[tokio::test]
async fn requests_wait_for_an_app_that_is_being_replaced_and_maintenance_says_so() {
    let proxy = Proxy::start().await;
    let publish = async |generation, targets: &[_], maintenance: Option<&str>| {
        let mut held = route("app", generation, targets);
        held.policy.hold_ms = 5_000;
        held.policy.maintenance = maintenance.map(Into::into);
        let table = Table::new(generation, vec![held]);
        proxy.client.publish(&table).await.unwrap();
    };
    publish(1, &[], None).await;
    let app = mirror().await;
    let mut waiting = Box::pin(proxy.get("/"));
    not_yet(&mut waiting).await;
    publish(2, &[app], None).await;
    let answer = waiting.await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    publish(3, &[app], Some("Back at noon.")).await;
    let answer = proxy.get("/").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Back at noon."));
    proxy.stop().await;
}

/// RFC 9110, 7.8.
#[tokio::test]
async fn http_1_0_knows_no_upgrade() {
    let proxy = with_mirror().await;
    let upgrade = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answer = proxy.raw(&format!("GET / HTTP/1.0\r\n{upgrade}")).await;
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    assert!(!answer.contains("websocket"), "{answer}");
    let answer = proxy.raw(&format!("GET / HTTP/1.1\r\n{upgrade}")).await;
    assert!(answer.contains("upgrade: websocket"), "{answer}");
    proxy.stop().await;
}

#[tokio::test]
async fn each_request_has_its_line_in_the_access_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = path.clone();
    let proxy = Proxy::start_with(|options| options.access_log = Some(log)).await;
    proxy.publish(1, &[mirror().await]).await;
    proxy.get("/x?token=secret").await;
    let line = || std::fs::read_to_string(&path).unwrap();
    assert!(soon(async || line().ends_with('\n')).await);
    let line = line();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["path"], "/x");
    assert_eq!(line["status"], 200);
    assert_eq!(line["outcome"], "answered");
    assert_eq!(line["app"], "app");
    assert_eq!(line["request_id"].as_str().unwrap().len(), 32);
    proxy.stop().await;
}

/// A server that answers before it has read everything must not lose its answer to a reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_the_middle_of_an_upload_arrives() {
    let proxy = Proxy::start().await;
    let refuses = says(
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope",
        Duration::ZERO,
    )
    .await;
    proxy.publish(1, &[refuses]).await;
    for _ in 0..10 {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
                    Content-Length: 8000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // A client that looks at the answer only when it has sent everything.
        let sent = stream.write_all(&[b'x'; 8_000_000]).await;
        assert!(sent.is_ok(), "{sent:?}");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(answer.ends_with("nope"), "{answer}");
    }
    proxy.stop().await;
}

/// A full disk: the new table is refused, and the one before goes on to serve.
#[tokio::test]
async fn a_table_that_cannot_be_stored_is_not_served() {
    let proxy = Proxy::start().await;
    let ok = |text: &'static str| says(text, Duration::ZERO);
    let one = ok("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none").await;
    let two = ok("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo").await;
    proxy.publish(1, &[one]).await;
    // Where the file would be written, nothing can be.
    let temp = proxy.folder.join("routes.json.new");
    std::fs::create_dir(&temp).unwrap();
    let table = Table {
        generation: 2,
        routes: vec![route("app", 2, &[two])],
        ..Default::default()
    };
    let refused = proxy.client.publish(&table).await.unwrap_err();
    assert!(
        refused.to_string().contains("failed to store the table"),
        "{refused}"
    );
    assert!(proxy.get("/").await.ends_with("one"));
    assert_eq!(proxy.client.hello().await.unwrap().generation, 1);
    std::fs::remove_dir(&temp).unwrap();
    proxy.client.publish(&table).await.unwrap();
    assert!(proxy.get("/").await.ends_with("two"));
    proxy.stop().await;
}

/// An app that answers without reading the body may close the connection after that, unannounced.
#[tokio::test]
async fn a_connection_whose_app_may_not_have_read_a_body_carries_no_other_request() {
    let proxy = Proxy::start().await;
    let request =
        |method: &str| format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    let refused = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for (generation, (method, answer)) in (1..).zip([("POST", refused), ("GET", ok)]) {
        let opened = Arc::new(AtomicU64::new(0));
        let counted = opened.clone();
        let target = app(move |mut stream| {
            counted.fetch_add(1, SeqCst);
            async move {
                let mut buffer = [0; 4096];
                let mut got = Vec::new();
                while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                    got.extend_from_slice(&buffer[..n]);
                    if got.ends_with(b"body") {
                        got.clear();
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                }
            }
        })
        .await;
        proxy.publish(generation, &[target]).await;
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        for _ in 0..3 {
            client.write_all(request(method).as_bytes()).await.unwrap();
            let head = read_head(&mut client).await;
            assert_eq!(head[..12], answer[..12], "{head}");
        }
        assert_eq!(opened.load(SeqCst), 3, "{method} {answer}");
    }
    proxy.stop().await;
}
