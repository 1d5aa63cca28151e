//! nghttp2's client and load generator, over TLS and in the clear.

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use crate::proxy::Proxy;
use crate::support::hello::Hello;
use crate::support::tool;
use crate::support::wait::soon;

const REQUESTS: &str = "2000";

/// With a certificate for `localhost`.
async fn secure(folder: &Path) -> Proxy {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = made.signing_key.serialize_pem();
    std::fs::write(folder.join("localhost.key"), key).unwrap();
    std::fs::write(folder.join("localhost.pem"), made.cert.pem()).unwrap();
    let certificates = folder.to_path_buf();
    Proxy::start_with(|options| {
        options.https = Some("127.0.0.1:0".parse().unwrap());
        options.certificates = certificates;
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2load_loses_nothing_at_a_switch() {
    let Some(h2load) = tool::find("h2load", "nghttp2-client") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let proxy = secure(folder.path()).await;
    let port = proxy.https.unwrap().port();
    let mut app = Hello::start(1).await;
    proxy.publish(1, &[app.address]).await;
    let load = |more: &[&str], url: String| {
        let mut command = Command::new(&h2load);
        command
            .args(["-n", REQUESTS, "-c", "4"])
            .args(more)
            .arg(url);
        async move { tool::output(&mut command).await.1 }
    };
    for (generation, (more, url)) in (2..).zip([
        (vec!["-m", "16"], format!("http://{}/", proxy.address)),
        (vec!["-m", "16"], format!("https://localhost:{port}/")),
        (vec!["--h1"], format!("https://localhost:{port}/")),
    ]) {
        let next = Hello::start(generation).await;
        let switch = async {
            let before = proxy.client.stats().await.unwrap()[0].requests;
            let under_way =
                async || proxy.client.stats().await.unwrap()[0].requests >= before + 100;
            assert!(soon(under_way).await);
            proxy.publish(generation, &[next.address]).await;
            let (limit, window) = (Duration::from_secs(10), Duration::ZERO);
            let drain = proxy.client.drain("app", generation, limit, window);
            assert_eq!(drain.await.unwrap().failed, 0);
        };
        let (said, ()) = tokio::join!(load(&more, url), switch);
        let all = format!("{REQUESTS} done, {REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(said.contains(&all), "{said}");
        assert!(
            said.contains(&format!("status codes: {REQUESTS} 2xx")),
            "{said}"
        );
        std::mem::replace(&mut app, next).stop().await;
    }
    app.stop().await;
    proxy.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nghttp_gets_whole_answers() {
    let Some(nghttp) = tool::find("nghttp", "nghttp2-client") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let proxy = secure(folder.path()).await;
    let port = proxy.https.unwrap().port();
    let app = Hello::start(1).await;
    proxy.publish(1, &[app.address]).await;
    let upload = folder.path().join("upload");
    std::fs::write(&upload, vec![b'x'; 300_000]).unwrap();
    let upload = upload.to_str().unwrap();
    for base in [
        format!("http://{}", proxy.address),
        format!("https://localhost:{port}"),
    ] {
        for (more, path, expected) in [
            (vec![], "/", "Hello from 1"),
            (vec!["-d", upload], "/upload", "300000"),
            (vec!["-d", upload, "--expect-continue"], "/upload", "300000"),
            (
                vec!["-d", upload, "--trailer", "x-sum: 7"],
                "/upload",
                "300000",
            ),
            // Many at a time, in small windows, padded, and with the smallest header table.
            (
                vec!["-m", "20", "-w", "14", "-W", "14", "-b", "100", "-c", "0"],
                "/stream?bytes=100000&ms=10",
                "....",
            ),
            (vec!["-H", ":method: HEAD"], "/", ""),
            (
                vec!["-v", "-H", ":method: OPTIONS"],
                "/nothing",
                ":status: 404",
            ),
        ] {
            let mut command = Command::new(&nghttp);
            command.args(&more).arg(format!("{base}{path}"));
            let (ended_well, said) = tool::output(&mut command).await;
            assert!(
                ended_well && said.contains(expected),
                "{base} {more:?} {path}: {said}"
            );
            if path.starts_with("/stream") {
                let dots = said.bytes().filter(|&b| b == b'.').count();
                assert!(dots >= 20 * 100_000, "{dots}");
            }
        }
    }
    app.stop().await;
    proxy.stop().await;
}
