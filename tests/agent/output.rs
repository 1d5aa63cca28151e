//! `cutover logs`: what an app writes, from whichever instance, and a deployment's log.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::server::{APP, Server};

fn logs(server: &Server, arguments: &[&str]) -> String {
    let arguments = [&["logs"], arguments].concat();
    let done = server.cutover(&arguments).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_followed_across_switches_and_kept_of_what_is_gone() {
    let mut server = Server::start().await;
    let first = server.go_live("v1").await;
    assert!(logs(&server, &[APP]).contains("v1 listens"));

    let command = server.cutover(&["logs", APP, "--follow"]);
    let mut command = tokio::process::Command::from(command);
    let mut follower = command
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut until = async |text: &str| {
        let read = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains(text) {
                    return;
                }
            }
            panic!("no `{text}` any more");
        };
        let read = tokio::time::timeout(std::time::Duration::from_secs(60), read);
        read.await.unwrap_or_else(|_| panic!("no `{text}`"));
    };
    until("v1 listens").await;
    server.go_live("v2").await;
    until("v2 listens").await;
    server.go_live("v3").await;
    until("v3 listens").await;

    // The containers of v1 and v2 are gone, what they said is not.
    let failed = server.push("v4", "exit-at-start").await;
    let (failed, _) = server.ended(&failed).await;
    assert_eq!(failed.state, "failed");
    let all = logs(&server, &[APP]);
    let said = ["v1 listens", "v2 listens", "v3 listens", "flux capacitor"];
    let at: Vec<_> = said.iter().map(|text| all.find(text)).collect();
    assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{all}");
    let one = logs(&server, &[APP, "--grep", "v2 listens", "--json"]);
    assert_eq!(one.lines().count(), 1, "{one}");
    assert_eq!(logs(&server, &[APP, "--instance", "7"]), "");
    assert_eq!(
        logs(&server, &[APP, "-n", "1", "--since", "1h"])
            .lines()
            .count(),
        1
    );

    let log = logs(&server, &[&first.id]);
    assert!(log.contains("[build]"), "{log}");
    server.stop().await;
}
