//! What people are told: the reason at the end of a long output, what to do about a known fault, and
//! nothing that their terminal would obey.

use crate::processes::rewrite;
use crate::server::{APP, File, SETTINGS, Server, files};
use crate::support::tool;
use cutover::cli::client::view::{Deployment, Failure};

/// An image that runs `command`, with a shell.
fn shell(command: &str) -> Option<Vec<File>> {
    let busybox = std::fs::read("/bin/busybox").ok()?;
    let dockerfile = "FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/busybox\n\
                      COPY run /run\nCMD [\"/bin/busybox\", \"sh\", \"/run\"]\n";
    Some(vec![
        File::new("Dockerfile", dockerfile),
        File {
            mode: 0o100_755,
            ..File::new("busybox", busybox)
        },
        File::new("run", command),
    ])
}

fn no_busybox() {
    tool::skip("there is no /bin/busybox (apt-get install busybox-static)");
}

async fn failed(server: &Server, files: &[File], message: &str) -> (Deployment, Failure) {
    let id = server.push_files(files, message).await;
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "failed", "{log:#?}");
    let error = deployment.error.clone().unwrap();
    (deployment, error)
}

fn is_harmless(text: &str) -> bool {
    let obeyed = |c: char| {
        c.is_control() && !matches!(c, '\n' | '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    !text.contains(obeyed)
}

/// A link, a title, another character set, a bell, and text that runs the other way.
const HOSTILE: &str = "\u{1b}]8;;https://evil.example\u{1b}\\link\u{1b}]8;;\u{1b}\\ \u{1b}]0;t\u{7}\
                       \u{1b}(B \u{7} \u{202e}txt \u{1b}[31mred";

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_is_at_the_end_and_is_shown_without_what_a_terminal_obeys() {
    let crash = "i=0; while [ $i -lt 40 ]; do /bin/busybox echo line $i; i=$((i+1)); done\n\
                 /bin/busybox dd if=/dev/zero bs=1024 count=1024 2>/dev/null | /bin/busybox tr '\\0' x\n\
                 /bin/busybox echo\n\
                 /bin/busybox cat /hostile\n\
                 /bin/busybox echo the reason >&2\nexit 3\n";
    let Some(mut crashing) = shell(crash) else {
        return no_busybox();
    };
    crashing[0]
        .bytes
        .extend_from_slice(b"COPY hostile /hostile\n");
    crashing.push(File::new("hostile", format!("{HOSTILE}\n")));
    let mut server = Server::with(SETTINGS).await;
    let message = format!("crash {HOSTILE}");
    let (deployment, error) = failed(&server, &crashing, &message).await;
    let tail = &error.log_tail;
    // Docker orders what is printed to stdout and to stderr only roughly.
    assert!(tail.iter().any(|line| line == "the reason"), "{tail:#?}");
    assert_eq!(tail.len(), 20, "{tail:#?}");
    assert!(tail.iter().any(|line| line == "line 39"), "{tail:#?}");
    assert!(
        tail.iter().any(|line| line.ends_with("(1048576 bytes)")),
        "{tail:#?}"
    );
    assert!(
        tail.iter()
            .any(|line| line.contains("link") && line.contains("red")),
        "{tail:#?}"
    );
    for arguments in [
        &["show", &deployment.id][..],
        &["show", &deployment.id, "--json"],
        &["logs", APP],
        &["deployments", APP],
        &["status", APP],
    ] {
        let output = server.cutover(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(is_harmless(&text), "{arguments:?}: {text:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_hook_is_told_with_its_own_lines() {
    let Some(files) = shell("/bin/busybox sleep 60\n") else {
        return no_busybox();
    };
    let hook = "echo one; echo two >&2; exit 4";
    let settings = format!("{SETTINGS}[apps.hello.hooks]\nrelease = \"{hook}\"\n");
    let mut server = Server::with(&settings).await;
    let (_, error) = failed(&server, &files, "hook").await;
    assert_eq!(error.code, "release_command_failed");
    let mut tail = error.log_tail.clone();
    tail.sort();
    assert_eq!(tail, ["one", "two"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_fault_is_answered_with_what_to_do() {
    let settings = format!("{SETTINGS}[apps.hello.hooks]\nrelease = \"true\"\n");
    let mut server = Server::with(&settings).await;
    // The sample app's image has no shell.
    let (_, error) = failed(&server, &files("v1", ""), "no shell").await;
    assert!(
        error.message.contains("the image has no shell"),
        "{error:?}"
    );
    server.stop().await;

    let mut server = Server::with(SETTINGS).await;
    let mut without = files("v1", "");
    without[0].bytes = b"FROM scratch\nCOPY hello version behaviour /\n".to_vec();
    let (_, error) = failed(&server, &without, "no command").await;
    assert!(
        error.message.contains("add `CMD` or `ENTRYPOINT`"),
        "{error:?}"
    );

    let mut mistyped = files("v1", "");
    mistyped[0].bytes = b"FRM scratch\nCOPY hello /\n".to_vec();
    let (_, error) = failed(&server, &mistyped, "mistyped").await;
    assert!(error.message.contains("FRM"), "{error:?}");
    assert!(
        error.message.contains("correct the Dockerfile's line"),
        "{error:?}"
    );
    server.stop().await;
}

/// An image whose server has a file capability, set in it by `setcap`.
fn with_file_capability() -> Option<Vec<File>> {
    let busybox = std::fs::read("/bin/busybox").ok()?;
    let setcap = std::fs::read("/usr/sbin/setcap").ok()?;
    let linked = std::process::Command::new("ldd")
        .arg("/usr/sbin/setcap")
        .output()
        .ok()?;
    let program = |path: &str, bytes: Vec<u8>| File {
        mode: 0o100_755,
        ..File::new(path, bytes)
    };
    let dockerfile = "FROM scratch\nCOPY root /\nRUN [\"/setcap\", \"cap_net_raw+ep\", \"/server/busybox\"]\n\
                      CMD [\"/server/busybox\", \"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n";
    let mut files = vec![
        File::new("Dockerfile", dockerfile),
        program("root/server/busybox", busybox),
        program("root/setcap", setcap),
        File::new("root/www/health", "ok"),
    ];
    for path in String::from_utf8(linked.stdout).ok()?.split_whitespace() {
        if path.starts_with('/') {
            files.push(program(&format!("root{path}"), std::fs::read(path).ok()?));
        }
    }
    Some(files)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_with_file_capabilities_is_told_what_it_lacks_and_runs_once_it_has_it() {
    let Some(files) = with_file_capability() else {
        tool::skip(
            "there is no /bin/busybox or no setcap (apt-get install busybox-static libcap2-bin)",
        );
        return;
    };
    let mut server = Server::with(SETTINGS).await;
    let (_, error) = failed(&server, &files, "capability").await;
    assert!(error.message.contains("file capabilities"), "{error:?}");
    assert!(error.message.contains("`capabilities`"), "{error:?}");
    let given = "[apps.hello.run]\ncapabilities = [\"NET_RAW\"]";
    rewrite(&server, "[apps.hello.run]", given);
    let reload = server.cutover(&["reload"]).output().unwrap();
    assert!(reload.status.success(), "{reload:?}");
    let deploy = server
        .cutover(&["deploy", APP, "--follow"])
        .output()
        .unwrap();
    assert!(deploy.status.success(), "{deploy:?}\n{}", server.log());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_built_before_is_named_and_can_be_built_anew() {
    let mut server = Server::with(SETTINGS).await;
    let first = server.go_live("v1").await;
    let deploy = async |options: &[&str]| {
        let mut arguments = vec!["deploy", APP, "--follow", "--json"];
        arguments.extend(options);
        let output = server.cutover(&arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let (_, log) = server.ended(answer["id"].as_str().unwrap()).await;
        (answer, log.join("\n"))
    };
    let built = format!("reusing the one that `{}` built", first.id);
    let (answer, log) = deploy(&[]).await;
    assert!(log.contains(&built), "{log}");
    assert_eq!(
        (&answer["no_cache"], &answer["pull"]),
        (&false.into(), &false.into())
    );
    // What was reused is still the first one's.
    let (_, log) = deploy(&[]).await;
    assert!(log.contains(&built), "{log}");
    let (answer, log) = deploy(&["--no-cache"]).await;
    assert!(
        !log.contains("reusing") && log.contains("load build definition"),
        "{log}"
    );
    assert_eq!(answer["no_cache"], true);
    // It builds on no image of a registry.
    let (answer, log) = deploy(&["--pull"]).await;
    assert!(log.contains("reusing"), "{log}");
    assert_eq!(answer["pull"], true);
    let output = server
        .cutover(&["show", answer["id"].as_str().unwrap()])
        .output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(
        text.contains("--pull") && !text.contains("--no-cache"),
        "{text}"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_is_told_with_its_key() {
    let server = Server::idle(SETTINGS).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    for (key, verb, section) in [
        (
            "agent.listen",
            "serve",
            text.replacen("127.0.0.1:0", &address.to_string(), 1),
        ),
        ("proxy.http", "proxy", {
            let at = text.find("[proxy]").unwrap();
            let (agent, proxy) = text.split_at(at);
            format!(
                "{agent}{}",
                proxy.replacen("127.0.0.1:0", &address.to_string(), 1)
            )
        }),
    ] {
        std::fs::write(&server.stage.config, section).unwrap();
        let output = server.cutover(&[verb]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{said}");
        assert!(said.contains(&format!("`{key}`")), "{said}");
        assert!(said.contains("another program uses the port"), "{said}");
    }
}
