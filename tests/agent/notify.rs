//! People are told what happens, in order, however often their server is down.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::server::{File, SETTINGS, Server};
use crate::support::wait::soon;

/// What a receiver got: the head, in lower case, and the body.
type Got = Arc<Mutex<Vec<(String, String)>>>;

/// A server that answers one request after the other: the first ones as `first` says, then 200.
async fn receiver(first: &[&'static str]) -> (String, Got) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hunter2", listener.local_addr().unwrap());
    let (got, first) = (Got::default(), first.to_vec());
    let kept = got.clone();
    tokio::spawn(async move {
        let mut answers = first.into_iter();
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await.unwrap_or(0) <= 2 {
                    break;
                }
                let line = line.to_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                head += &line;
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.unwrap();
            let status = answers.next().unwrap_or("200 OK\r\n");
            if status.starts_with("200") {
                kept.lock().push((head, String::from_utf8(body).unwrap()));
            }
            let answer = format!("HTTP/1.1 {status}content-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.get_mut().write_all(answer.as_bytes()).await;
        }
    });
    (url, got)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_wants_to_know_is_told_in_order_and_once() {
    let unwell = ["500 No\r\n", "429 Slowly\r\nretry-after: 1\r\n"];
    let (slack, in_slack) = receiver(&unwell).await;
    let (hook, in_hook) = receiver(&[]).await;
    let settings = format!(
        "{SETTINGS}\n[notify.ops]\nkind = 'slack'\nurl = {{ env = 'OPS_URL' }}\n\
         [notify.ci]\nkind = 'webhook'\nurl = {{ env = 'HOOK_URL' }}\nsecret = {{ env = 'HOOK_SECRET' }}\n\
         events = ['live', 'recovered']\n\
         [notify.gone]\nkind = 'ntfy'\nurl = {{ env = 'GONE_URL' }}\nevents = []\n"
    );
    let mut server = Server::idle(&settings).await;
    server.set_env("OPS_URL", &slack);
    server.set_env("HOOK_URL", &hook);
    server.set_env("HOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    server.set_env("GONE_URL", "http://127.0.0.1:1/hunter2");
    server.serve().await;
    server.go_live("v1").await;
    let broken = vec![File::new("Dockerfile", "FROM scratch\nCOPY not-there /\n")];
    let id = server.push_files(&broken, "Break <it>").await;
    server.ended(&id).await;
    server.go_live("v3").await;
    let told = soon(async || in_slack.lock().len() == 2 && in_hook.lock().len() == 2).await;
    assert!(
        told,
        "{:?}\n{:?}\n{}",
        in_slack.lock(),
        in_hook.lock(),
        server.log()
    );
    let texts: Vec<_> = in_slack
        .lock()
        .iter()
        .map(|(_, body)| body.clone())
        .collect();
    assert!(
        texts[0].contains("a deployment failed") && texts[0].contains("Break &lt;it&gt;"),
        "{texts:?}"
    );
    assert!(
        texts[0].contains("not-there") && texts[1].contains("works again"),
        "{texts:?}"
    );
    let bodies: Vec<_> = in_hook.lock().clone();
    let kinds = ["deployment.live", "deployment.recovered"];
    for ((head, body), kind) in bodies.iter().zip(kinds) {
        assert!(body.contains(&format!("\"type\":\"{kind}\"")), "{body}");
        assert!(head.contains("webhook-signature: v1,"), "{head}");
    }

    let output = server.cutover(&["notify", "test"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("`ops` was told") && said.contains("`gone` was not told"),
        "{said}"
    );
    let one = server.cutover(&["notify", "test", "ci"]).output().unwrap();
    assert_eq!(one.status.code(), Some(0));
    assert!(
        in_hook
            .lock()
            .last()
            .unwrap()
            .1
            .contains("\"type\":\"test\"")
    );
    assert!(
        !server.log().contains("hunter2") && !said.contains("hunter2"),
        "{}",
        server.log()
    );
    server.stop().await;
}
