//! HTTPS by itself: certificates from an authority, ordered, renewed and served.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::authority::Authority;
use crate::server::Server;
use crate::support::wait::soon;

/// What the API says of a name.
pub async fn known(server: &Server, name: &str) -> Value {
    let all = server.api("/api/v1/certificates").await;
    let all = all["items"].as_array().unwrap().clone();
    all.into_iter()
        .find(|it| it["name"] == name)
        .unwrap_or_default()
}

pub async fn served(authority: &Authority, server: &Server, name: &str) {
    let served = soon(async || authority.get(name).await.is_ok()).await;
    let known = known(server, name).await;
    let (log, ca) = (server.log(), authority.log());
    assert!(served, "`{name}` is not served\n{known:#}\n{log}\n{ca}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_domains_are_on_https_by_themselves_and_a_third_after_a_reload() {
    let Some(mut authority) = Authority::new().await else {
        return;
    };
    authority.set_env(&[
        ("PEBBLE_VA_SLEEPTIME", "2"),
        ("PEBBLE_WFE_NONCEREJECT", "20"),
    ]);
    authority.start().await;
    let mut server = authority
        .server(&["hello.test", "www.hello.test"], "")
        .await;
    let begun = Instant::now();
    server.serve().await;
    served(&authority, &server, "hello.test").await;
    served(&authority, &server, "www.hello.test").await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}\n{}", server.log());

    let hello = known(&server, "hello.test").await;
    assert_eq!(hello["source"], "acme", "{hello:#}");
    assert_eq!(hello["problem"], Value::Null);
    assert!(
        hello["issuer"].as_str().unwrap().contains("Pebble"),
        "{hello:#}"
    );
    assert!(hello["renews_at"].as_str() < hello["expires_at"].as_str());
    let acme = server.stage.data_dir.join("acme");
    let pem = acme.join("certificates/hello.test.pem");
    for (path, mode) in [(&acme, 0o700), (&pem, 0o600)] {
        let found = std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{}", path.display());
    }
    assert_eq!(
        std::fs::read_dir(acme.join("challenges")).unwrap().count(),
        0
    );
    assert_eq!(std::fs::read_dir(acme.join("pending")).unwrap().count(), 0);

    // Without TLS, the way leads to where it is.
    let plain =
        crate::support::demo::http::get(authority.http, "HELLO.test.:80", "/a%20b?c=d").await;
    let plain = plain.unwrap();
    assert_eq!(plain.status, 308);
    let to = format!("https://HELLO.test:{}/a%20b?c=d", authority.https.port());
    assert_eq!(plain.headers["location"], to.as_str());

    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let more = text.replace(
        "\"www.hello.test\"]",
        "\"www.hello.test\", \"new.hello.test\"]",
    );
    std::fs::write(&server.stage.config, more).unwrap();
    server.agent().reload();
    served(&authority, &server, "new.hello.test").await;

    // A file of the owner's wins for its names.
    let own = rcgen::generate_simple_self_signed(vec!["www.hello.test".into()]).unwrap();
    let certs = server.stage.data_dir.join("certs");
    std::fs::create_dir_all(&certs).unwrap();
    std::fs::write(certs.join("www.key"), own.signing_key.serialize_pem()).unwrap();
    std::fs::write(certs.join("www.pem"), own.cert.pem()).unwrap();
    let replaced = async || authority.get("www.hello.test").await.is_err();
    assert!(soon(replaced).await, "{}", server.log());
    assert_eq!(known(&server, "www.hello.test").await["source"], "file");
    let metrics = server.ask(http::Request::get("/metrics"), "").await.text();
    let line = "cutover_certificate_problem{name=\"hello.test\"} 0";
    assert!(metrics.contains(line), "{metrics}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_continued_by_the_next_agent_and_an_authority_that_is_away_is_waited_for() {
    let Some(mut authority) = Authority::new().await else {
        return;
    };
    let mut server = authority.server(&["hello.test"], "").await;
    server.serve().await;
    let told = soon(async || known(&server, "hello.test").await["failures"] == 1).await;
    assert!(told, "{}", server.log());
    let problem = known(&server, "hello.test").await["problem"].to_string();
    assert!(problem.contains("cannot be reached"), "{problem}");
    let status = server.cutover(&["status"]).output().unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        status.contains("! `hello.test`: it has no certificate yet"),
        "{status}"
    );

    // It takes its time to look, and the agent is killed meanwhile.
    authority.set_env(&[("PEBBLE_VA_SLEEPTIME", "8")]);
    authority.start().await;
    let ordering = soon(async || known(&server, "hello.test").await["ordering"] == true).await;
    assert!(ordering, "{}", server.log());
    server.agent().kill().await.unwrap();
    server.serve().await;
    served(&authority, &server, "hello.test").await;
    let db = rusqlite::Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let count = "SELECT count(*) FROM certificate_orders";
    let orders: i64 = db.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(orders, 1, "{}", server.log());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_under_load_and_one_name_that_fails_holds_up_no_other() {
    let Some(mut authority) = Authority::new().await else {
        return;
    };
    authority.set("certificateValidityPeriod", json!(15));
    authority.set("domainBlocklist", json!(["blocked.test"]));
    authority.start().await;
    let mut server = authority.server(&["blocked.test", "hello.test"], "").await;
    server.serve().await;
    served(&authority, &server, "hello.test").await;
    let first = authority.get("hello.test").await.unwrap().serial;
    let stop = AtomicBool::new(false);
    let renewed = async {
        let renewed = soon(async || {
            let now = authority.get("hello.test").await;
            now.is_ok_and(|now| now.serial != first)
        });
        let renewed = renewed.await;
        stop.store(true, Relaxed);
        renewed
    };
    let (renewed, (answered, failed)) = tokio::join!(renewed, authority.load("hello.test", &stop));
    assert!(renewed, "{}", server.log());
    assert!(answered > 100 && failed.is_empty(), "{answered} {failed:?}");
    let blocked = known(&server, "blocked.test").await;
    assert_eq!(blocked["source"], "acme");
    assert!(blocked["failures"].as_u64() >= Some(1), "{blocked:#}");
    assert!(
        blocked["problem"]
            .to_string()
            .contains("rejectedIdentifier"),
        "{blocked:#}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_bound_to_the_one_that_the_authority_knows() {
    let Some(mut authority) = Authority::new().await else {
        return;
    };
    // base64url, as authorities show it.
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    authority.set("externalAccountBindingRequired", json!(true));
    authority.set("externalAccountMACKeys", json!({ "kid-1": key }));
    authority.start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("eab");
    std::fs::write(&file, key.replace('z', "y")).unwrap();
    let account = format!(", account = {{ id = \"kid-1\", key = {{ file = {file:?} }} }}");
    let mut server = authority.server(&["hello.test"], &account).await;
    server.serve().await;
    let refused = soon(async || known(&server, "hello.test").await["failures"].as_u64() >= Some(1));
    assert!(refused.await, "a wrong key: {}", server.log());
    std::fs::write(&file, format!("{key}\n")).unwrap();
    let renew = ["certificates", "renew", "hello.test"];
    let renew = server.cutover(&renew).output().unwrap();
    assert!(renew.status.success(), "{renew:?}");
    served(&authority, &server, "hello.test").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_when_somebody_asks_even_if_the_authority_lost_the_account() {
    let Some(mut authority) = Authority::new().await else {
        return;
    };
    authority.start().await;
    let mut server = authority.server(&["hello.test"], "").await;
    server.serve().await;
    served(&authority, &server, "hello.test").await;
    // It has forgotten everything.
    authority.start().await;
    let renew = |name: &str| {
        server
            .cutover(&["certificates", "renew", name])
            .output()
            .unwrap()
    };
    assert!(renew("hello.test").status.success());
    served(&authority, &server, "hello.test").await;
    let unknown = renew("other.test");
    assert!(!unknown.status.success());
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(said.contains("not served over TLS"), "{said}");
    let listed = server.cutover(&["certificates"]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("hello.test  acme"), "{listed}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_domains_get_theirs_at_once() {
    let Some(mut authority) = Authority::new().await else {
        return;
    };
    authority.start().await;
    let names: Vec<String> = (0..50).map(|n| format!("n{n}.hello.test")).collect();
    let domains: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut server = authority.server(&domains, "").await;
    server.serve().await;
    for name in &domains {
        served(&authority, &server, name).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_proved_by_tls_where_port_80_is_closed_and_a_wildcard_through_dns() {
    let Some(mut authority) = Authority::new().await else {
        return;
    };
    // Nothing listens there.
    authority.set("httpPort", json!(1));
    authority.start().await;
    let program = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{}; body=\"{{\\\"host\\\": \\\"$2.\\\", \\\"value\\\": \\\"$3\\\"}}\"; \
         printf 'POST /%s HTTP/1.0\\r\\nContent-Length: %d\\r\\n\\r\\n%s' $1 ${{#body}} \"$body\" >&3; \
         read -r _ code _ <&3; test \"$code\" = 200",
        authority.records.port()
    );
    let dns = |verb: &str| json!(["bash", "-c", program, "dns", verb]);
    let more = format!(
        ", dns = {{ add = {}, remove = {}, wait = \"0s\" }}",
        dns("set-txt"),
        dns("clear-txt"),
    );
    let mut server = authority
        .server(&["hello.test", "*.hello.test"], &more)
        .await;
    server.serve().await;
    served(&authority, &server, "any.hello.test").await;
    let failed = soon(async || known(&server, "hello.test").await["failures"] == 1).await;
    assert!(failed, "{}", server.log());
    let renew = server
        .cutover(&["certificates", "renew", "hello.test"])
        .output();
    assert!(renew.unwrap().status.success());
    served(&authority, &server, "hello.test").await;
    server.stop().await;
}

/// Counts the questions; knows the names that end in `known.test`.
async fn asked() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let (_, name) = line.split_once("/known?domain=").unwrap();
            let name = name.split(' ').next().unwrap().to_owned();
            let status = match name.ends_with("known.test") {
                true => "200 OK",
                false => "404 Not Found",
            };
            seen.lock().unwrap().push(name);
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_a_client_asks_for_is_asked_about_once_and_certified_if_it_is_known() {
    let Some(mut authority) = Authority::new().await else {
        return;
    };
    authority.start().await;
    let (address, asked) = asked().await;
    let mut server = authority.server(&["hello.test"], "").await;
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let key = format!("domains_ask = \"http://{address}/known\"\ndomains = ");
    std::fs::write(&server.stage.config, text.replacen("domains = ", &key, 1)).unwrap();
    server.serve().await;
    served(&authority, &server, "hello.test").await;
    assert!(asked.lock().unwrap().is_empty(), "it is in deploy.toml");
    server.go_live("v1").await;

    assert!(authority.get("shop.known.test").await.is_err());
    served(&authority, &server, "shop.known.test").await;
    let shop = authority.get("shop.known.test").await.unwrap();
    assert!(shop.text.contains("v1"), "{}", shop.text);
    for _ in 0..20 {
        assert!(authority.get("evil.test").await.is_err());
    }
    let told = soon(async || asked.lock().unwrap().len() == 2).await;
    assert!(told, "{asked:?}\n{}", server.log());
    assert!(authority.get("evil.test").await.is_err());
    // The names that cost an order: those of deploy.toml and the one that is known.
    let db = rusqlite::Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let count = "SELECT count(*) FROM certificate_orders";
    let orders: i64 = db.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(orders, 2, "{}", server.log());
    assert_eq!(known(&server, "shop.known.test").await["source"], "acme");
    assert_eq!(known(&server, "evil.test").await, Value::Null);

    // Remembered by the next agent, and served meanwhile.
    server.stop().await;
    server.serve().await;
    served(&authority, &server, "shop.known.test").await;
    assert_eq!(*asked.lock().unwrap(), ["shop.known.test", "evil.test"]);
    assert_eq!(known(&server, "shop.known.test").await["source"], "acme");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_away_at_the_renewal_costs_nothing() {
    let Some(mut authority) = Authority::new().await else {
        return;
    };
    // Renewed when two thirds are over; the rest is what the authority may be away.
    authority.set("certificateValidityPeriod", json!(60));
    authority.start().await;
    let mut server = authority.server(&["hello.test"], "").await;
    server.serve().await;
    served(&authority, &server, "hello.test").await;
    let first = authority.get("hello.test").await.unwrap().serial;
    let roots = authority.roots().await;
    authority.stop().await;
    let db = rusqlite::Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let failures = || {
        let sql = "SELECT failures FROM certificates WHERE name = 'hello.test'";
        db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    let due = Instant::now();
    while failures() == 0 {
        assert!(due.elapsed() < Duration::from_secs(60), "{}", server.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let told = known(&server, "hello.test").await;
    let problem = told["problem"].to_string();
    assert!(problem.contains("not renewed yet"), "{told:#}");
    assert!(problem.contains("cannot be reached"), "{told:#}");
    assert!(told["next_try"].is_string(), "{told:#}");
    let served = authority.get_with("hello.test", roots).await.unwrap();
    assert_eq!(served.serial, first, "it is served on");

    authority.start().await;
    let renewed = async || {
        let now = authority.get("hello.test").await;
        now.is_ok_and(|now| now.serial != first)
    };
    assert!(soon(renewed).await, "{}", server.log());
    assert_eq!(known(&server, "hello.test").await["problem"], Value::Null);
    server.stop().await;
}
