//! Programs that a Dockerfile names to be read by.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::server::{SETTINGS, Server, files, free_address};

async fn push(server: &Server, version: &str, head: &str) -> String {
    let mut files = files(version, "");
    let dockerfile = files.iter_mut().find(|it| it.path == "Dockerfile").unwrap();
    dockerfile.bytes = [head.as_bytes(), &dockerfile.bytes].concat();
    server.push_files(&files, version).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_frontend_is_refused_and_one_that_cannot_be_had_fails_in_seconds() {
    let away = free_address();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = format!(
        "{SETTINGS}[apps.hello.build]\nfrontends = [\"{away}/**\", \"{}/**\"]\n",
        silent.local_addr().unwrap()
    );
    let server = Server::with(&settings).await;
    server.go_live("v1").await;
    let fails = async |head: String| {
        let begun = Instant::now();
        let id = push(&server, "v2", &head).await;
        let (deployment, log) = server.ended(&id).await;
        assert_eq!(deployment.state, "failed", "{log:#?}");
        assert_eq!(server.version().await, "v1");
        let error = deployment.error.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60));
        (error, log.join("\n"))
    };
    for (head, line) in [
        ("# syntax=evil.example/x:1\n", "line 1"),
        ("# escape=`\n#syntax = docker/dockerfile:1 x\r\n", "line 2"),
        ("// syntax=evil.example/x:1\n", "line 1"),
    ] {
        let (error, _) = fails(head.to_owned()).await;
        assert_eq!(error.code, "frontend_refused", "{error:?}");
        assert!(error.message.contains(line), "{error:?}");
    }
    for address in [away, silent.local_addr().unwrap()] {
        let (error, log) = fails(format!("# syntax={address}/x/y:1\n")).await;
        assert_eq!(error.code, "build_failed", "{error:?}");
        for remedy in ["delete the line", "`frontends = \"builtin\"`"] {
            assert!(log.contains(remedy), "{log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dockers_own_parser_can_read_what_names_another() {
    let settings = format!("{SETTINGS}[apps.hello.build]\nfrontends = \"builtin\"\n");
    let server = Server::with(&settings).await;
    let id = push(&server, "v1", "# syntax=docker/dockerfile:99\n# escape=`\n").await;
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "live", "{log:#?}");
    assert_eq!(server.version().await, "v1");
    let told = log.iter().any(|line| line.contains("`build.frontends`"));
    assert!(told, "{log:#?}");
    let id = push(&server, "v2", "// syntax=docker/dockerfile:1\n").await;
    let error = server.ended(&id).await.0.error.unwrap();
    assert_eq!(error.code, "frontend_refused", "{error:?}");
}
