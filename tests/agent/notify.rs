//! People are told what happens, in order, however often their server is down.

use std::io::Read;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::server::{File, SETTINGS, Server};
use crate::support::wait::soon;

/// What a receiver got: the head, in lower case, and the body.
pub type Got = Arc<Mutex<Vec<(String, String)>>>;

/// A server that answers one request after the other: the first ones as `first` says, then 200.
pub async fn receiver(first: &[&'static str]) -> (String, Got) {
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
            if head.contains("content-encoding: gzip") {
                let mut plain = Vec::new();
                let read = flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain);
                assert!(read.is_ok());
                body = plain;
            }
            let answer = answers.next().unwrap_or("200 OK\r\n");
            if answer.starts_with("200") {
                kept.lock().push((head, String::from_utf8(body).unwrap()));
            }
            // What follows a bar is the body.
            let (status, body) = answer.split_once('|').unwrap_or((answer, ""));
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
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
        "{SETTINGS}\n[apps.hello.cron.bad]\nschedule = '0 0 29 2 *'\ncommand = ['/hello', 'exit', '3']\n\
         [notify.ops]\nkind = 'slack'\nurl = {{ env = 'OPS_URL' }}\n\
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
    // What happens before a message has arrived comes in the same one.
    assert!(soon(async || in_slack.lock().len() == 1).await);
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

    // A scheduled command that fails, with its last words.
    let run = server.cutover(&["cron", "hello", "bad", "--run"]).status();
    assert!(run.unwrap().success());
    let told = soon(async || in_slack.lock().len() == 3).await;
    assert!(told, "{}", server.log());
    let (_, text) = in_slack.lock()[2].clone();
    for word in ["scheduled command bad failed", "code 3"] {
        assert!(text.contains(word), "{text}");
    }

    let output = server.cutover(&["notify", "test"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("`ops` was notified") && said.contains("`gone` was not notified"),
        "{said}"
    );
    // Who cannot be reached is shown until they are.
    let seen = server.api("/api/v1/configuration").await["unreached"].clone();
    assert_eq!((&seen[0]["receiver"], seen.get(1)), (&"gone".into(), None));
    let status = server.cutover(&["status"]).output().unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        status.contains("notifications to `gone` have been failing"),
        "{status}"
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

/// A mail server that refuses the first `busy` mails for now, and keeps what comes after `DATA`.
async fn mail_server(mut busy: usize) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://ops:hunter2@{}", listener.local_addr().unwrap());
    let got = Arc::new(Mutex::new(Vec::new()));
    let kept = got.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            let mut answer = "220 mail.test".to_owned();
            let mut data: Option<String> = None;
            loop {
                if data.is_none() {
                    answer += "\r\n";
                    let _ = stream.get_mut().write_all(answer.as_bytes()).await;
                }
                let mut line = String::new();
                if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                    break;
                }
                if let Some(text) = &mut data {
                    if line != ".\r\n" {
                        *text += &line;
                        continue;
                    }
                    kept.lock().extend(data.take());
                    answer = "250 OK".into();
                    continue;
                }
                answer = match line.get(..4).unwrap_or_default() {
                    "EHLO" => "250-mail.test\r\n250 AUTH PLAIN".into(),
                    "AUTH" => "235 OK".into(),
                    "MAIL" if busy > 0 => {
                        busy -= 1;
                        "451 later".into()
                    }
                    "DATA" => {
                        let _ = stream.get_mut().write_all(b"354 go on\r\n").await;
                        data = Some(String::new());
                        continue;
                    }
                    "QUIT" => "221 bye".into(),
                    _ => "250 OK".into(),
                };
            }
        }
    });
    (url, got)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_is_asked_as_its_documentation_says() {
    let mut settings = SETTINGS.to_owned();
    let (mut urls, mut got) = (Vec::new(), Vec::new());
    for (kind, keys) in [
        ("slack", ""),
        ("mattermost", ""),
        ("discord", ""),
        ("teams", ""),
        ("telegram", "secret = { env = 'TOKEN' }\nchat = '-100'\n"),
        (
            "pushover",
            "secret = { env = 'TOKEN' }\nuser = { env = 'TOKEN' }\n",
        ),
    ] {
        let (url, requests) = receiver(&[]).await;
        settings +=
            &format!("[notify.{kind}]\nkind = '{kind}'\nurl = {{ env = '{kind}' }}\n{keys}");
        urls.push((kind, url));
        got.push((kind, requests));
    }
    let (mail, mails) = mail_server(0).await;
    settings += "[notify.mail]\nkind = 'email'\nurl = { env = 'MAIL' }\nfrom = 'cutover@x.test'\n\
                 to = ['Ops <ops@x.test>']\n";
    let mut server = Server::idle(&settings).await;
    for (kind, url) in &urls {
        server.set_env(kind, url);
    }
    server.set_env("TOKEN", "hunter2");
    server.set_env("MAIL", &mail);
    server.serve().await;
    let output = server.cutover(&["notify", "test"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}\n{}", server.log());
    for (kind, requests) in got {
        let (head, body) = requests.lock()[0].clone();
        let json: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        let text = match kind {
            "slack" => &json["text"],
            "mattermost" => &json["attachments"][0]["title"],
            "discord" => &json["embeds"][0]["title"],
            "teams" => &json["attachments"][0]["content"]["body"][0]["inlines"][0]["text"],
            "telegram" => {
                assert!(
                    head.starts_with("post /hunter2/bothunter2/sendmessage "),
                    "{head}"
                );
                assert_eq!(json["chat_id"], "-100");
                &json["text"]
            }
            _ => {
                assert!(head.starts_with("post /hunter2/1/messages.json "), "{head}");
                assert!(body.contains("title=Cutover+can+reach+you"), "{body}");
                continue;
            }
        };
        let text = text.as_str().unwrap_or_else(|| panic!("{kind}: {body}"));
        assert!(text.contains("Cutover can reach you"), "{kind}: {body}");
    }
    let mail = mails.lock()[0].clone();
    assert!(
        mail.contains("Subject: Cutover can reach you\r\n"),
        "{mail}"
    );
    assert!(mail.contains("To: Ops <ops@x.test>\r\n"), "{mail}");
    assert!(!server.log().contains("hunter2"), "{}", server.log());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_the_server_is_told_later_at_once_and_not_at_night() {
    let slowly = ["429 Slowly\r\n|{\"ok\":false,\"parameters\":{\"retry_after\":8}}"];
    let (phone, on_phone) = receiver(&slowly).await;
    let (night, at_night) = receiver(&[]).await;
    let (mail, mails) = mail_server(1).await;
    // From an hour ago until an hour from now.
    let hour = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        / 3600;
    let quiet = format!("{:02}:00-{:02}:00", (hour + 23) % 24, (hour + 2) % 24);
    let settings = format!(
        "{SETTINGS}\n[notify.phone]\nkind = 'telegram'\nurl = {{ env = 'PHONE' }}\n\
         secret = {{ env = 'TOKEN' }}\nchat = '1'\n\
         [notify.night]\nkind = 'ntfy'\nurl = {{ env = 'NIGHT' }}\nquiet = '{quiet}'\n\
         [notify.mail]\nkind = 'email'\nurl = {{ env = 'MAIL' }}\nfrom = 'c@x.test'\nto = ['o@x.test']\n"
    );
    let mut server = Server::idle(&settings).await;
    server.set_env("PHONE", &phone);
    server.set_env("NIGHT", &night);
    server.set_env("MAIL", &mail);
    server.set_env("TOKEN", "hunter2");
    server.serve().await;
    server.stop().await;
    server.serve().await;
    server.agent().kill().await.unwrap();
    server.serve().await;
    // While the phone's server wants to be left alone, something else happens.
    let busy = soon(async || server.log().contains("it answered 429")).await;
    assert!(busy, "{}", server.log());
    let broken = vec![File::new("Dockerfile", "FROM scratch\nCOPY not-there /\n")];
    let id = server.push_files(&broken, "Break it").await;
    server.ended(&id).await;
    let mailed = || mails.lock().concat();
    let told = soon(async || !on_phone.lock().is_empty() && mailed().contains("failed")).await;
    assert!(
        told,
        "{:?}\n{:?}\n{}",
        on_phone.lock(),
        mails.lock(),
        server.log()
    );
    let body = on_phone.lock()[0].1.clone();
    assert!(body.contains("2 events"), "{body}");
    assert!(body.contains("The agent was restarted") && body.contains("a deployment failed"));
    assert_eq!(on_phone.lock().len(), 1);
    assert!(mailed().contains("The agent was restarted"), "{}", mailed());
    assert!(at_night.lock().is_empty(), "{:?}", at_night.lock());
    server.stop().await;
}
