//! A push straight over git to a bare repository on the machine: the pusher sees the log and how it
//! ended.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::git::{commit, git};
use crate::server::{APP, CUTOVER, SETTINGS, Server, free_address};
use crate::support::tool;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Installs the hook as its first lines say, and clones the repository.
fn install(server: &Server) -> std::path::PathBuf {
    let repo = &server.stage.repo;
    let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks/post-receive");
    std::fs::create_dir_all(repo.join("hooks")).unwrap();
    std::fs::copy(hook, repo.join("hooks/post-receive")).unwrap();
    let config = server.stage.config.to_str().unwrap();
    git(repo, &["config", "cutover.config", config]);
    git(repo, &["config", "cutover.program", CUTOVER]);
    let work = server.stage.folder.join("work");
    let (repo, folder) = (repo.to_str().unwrap(), work.to_str().unwrap());
    git(&server.stage.folder, &["clone", "-q", repo, folder]);
    git(&work, &["checkout", "-q", "-B", "main"]);
    work
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pusher_sees_the_log_and_how_it_ended() {
    let mut server = Server::start().await;
    let work = install(&server);
    commit(&work, "v1", "");
    let said = git(&work, &["push", "origin", "main"]);
    assert!(
        said.contains("remote: `hello` is live with `cutover/hello:"),
        "{said}"
    );
    assert_eq!(server.version().await, "v1");

    // A broken one: git took it, and says why it does not serve.
    commit(&work, "v2", "exit-at-start");
    let said = git(&work, &["push", "origin", "main"]);
    assert!(said.contains("remote: Error: deployment `"), "{said}");
    assert!(said.contains("exited with code 7"), "{said}");
    assert_eq!(server.version().await, "v1");

    // Another branch is not deployed, and the pusher is told.
    let said = git(&work, &["push", "origin", "main:other"]);
    assert!(
        said.contains("remote: refs/heads/other: not deployed: "),
        "{said}"
    );

    // Of several refs each is named.
    let said = git(
        &work,
        &["push", "origin", "main:another", "HEAD~1:refs/tags/old"],
    );
    for git_ref in ["refs/heads/another", "refs/tags/old"] {
        let named = format!("remote: {git_ref}: not deployed: ");
        assert!(said.contains(&named), "{said}");
    }

    // Nor is what asks for being left alone.
    commit(&work, "v2b\n\nNothing of interest.\n\n[skip deploy]", "");
    let said = git(&work, &["push", "origin", "main"]);
    assert!(
        said.contains("the head commit's message contains `[skip deploy]`"),
        "{said}"
    );

    // A file that is being edited keeps no push from the agent, which goes by the file as it was.
    let good = std::fs::read_to_string(&server.stage.config).unwrap();
    std::fs::write(&server.stage.config, good.clone() + "bananas = [\n").unwrap();
    commit(&work, "v2c", "");
    let said = git(&work, &["push", "origin", "main"]);
    assert!(said.contains("remote: `hello` is live with"), "{said}");

    // Without a file nobody knows where the agent is.
    std::fs::remove_file(&server.stage.config).unwrap();
    commit(&work, "v2d", "");
    let said = git(&work, &["push", "origin", "main"]);
    assert!(said.contains("stored in the repository, but not"), "{said}");
    std::fs::write(&server.stage.config, good).unwrap();

    // No agent: the push is kept, and the pusher knows what to do.
    server.stop().await;
    commit(&work, "v3", "");
    let said = git(&work, &["push", "origin", "main"]);
    assert!(said.contains("the agent cannot be reached"), "{said}");
    assert!(said.contains("cutover deploy hello"), "{said}");
    let hook = std::fs::read_to_string(server.stage.repo.join("hooks/post-receive")).unwrap();
    assert!(!hook.contains(&server.token()));

    server.serve().await;
    let output = server
        .cutover(&["deploy", "hello", "--follow"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(server.version().await, "v3");
    server.stop().await;
}

/// The newest deployment.
async fn newest(server: &Server) -> serde_json::Value {
    let list = format!("/api/v1/apps/{APP}/deployments?limit=1");
    server.api(&list).await["items"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_ends_when_requests_go_to_it_and_its_watch_goes_on() {
    let watched = SETTINGS.replace("bake = \"0s\"", "bake = \"600s\"");
    let mut server = Server::with(&watched).await;
    let work = install(&server);
    git(
        &server.stage.repo,
        &["config", "receive.advertisePushOptions", "true"],
    );
    let url = format!(
        "http://ann:{}@{}/git/{APP}.git",
        server.token(),
        server.agent().address
    );
    let mut ends = Vec::new();
    for (version, door) in [("v1", "origin"), ("v2", url.as_str())] {
        commit(&work, version, "");
        let said = git(&work, &["push", door, "main"]);
        for line in [
            "remote: [switch] serving at http://hello.test/; watched for 600 s",
            "remote: `hello` is live with `cutover/hello:",
        ] {
            assert!(said.contains(line), "{said}");
        }
        assert_eq!(server.version().await, version);
        let now = newest(&server).await;
        let state = now["state"].as_str().unwrap();
        assert!(["draining", "baking"].contains(&state), "{state}");
        // Both doors end in the same words.
        let end = said.split("remote: `hello` is live").nth(1).unwrap();
        let (_, end) = end.split_once("; ").unwrap();
        let end = end.replace(now["id"].as_str().unwrap(), "ID");
        ends.push(end.lines().next().unwrap().trim().to_owned());
    }
    assert_eq!(ends[0], ends[1]);
    assert!(ends[0].contains("`cutover logs ID --follow`"), "{ends:?}");

    // Whoever follows on the command line is told at the switch, and may leave.
    let mut follow = tokio::process::Command::from(server.cutover(&["deploy", APP, "--follow"]));
    let mut follow = follow
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("`hello` is live with") {
            assert!(line.contains("Ctrl-C leaves it watching"), "{line}");
            break;
        }
    }
    let pid = Pid::from_raw(follow.id().unwrap() as i32).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let left = follow.wait_with_output().await.unwrap();
    assert_eq!(left.status.code(), Some(130));
    let now = newest(&server).await;
    let id = now["id"].as_str().unwrap();
    let said = String::from_utf8_lossy(&left.stderr).into_owned();
    assert!(
        said.contains(&format!("`cutover logs {id} --follow`")),
        "{said}"
    );
    assert!(["draining", "baking"].contains(&now["state"].as_str().unwrap()));

    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    std::fs::write(&server.stage.config, text.replace("\"600s\"", "\"1s\"")).unwrap();
    assert!(server.cutover(&["reload"]).status().unwrap().success());
    for door in ["origin", url.as_str()] {
        git(
            &work,
            &["commit", "-q", "--allow-empty", "-m", "to the end"],
        );
        let said = git(&work, &["push", "-o", "cutover.wait=end", door, "main"]);
        assert!(said.contains("remote: [bake]"), "{said}");
        assert!(said.contains("remote: `hello` is live with"), "{said}");
        assert_eq!(newest(&server).await["state"], "live");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_apps_each_is_shown_and_each_failure_named() {
    let mut others = String::new();
    for name in ["broken", "lame"] {
        others += &format!(
            "[apps.{name}]\nrepo = 'hello.git'\nport = 8080\ndomains = ['{name}.test']\n\
             [apps.{name}.build]\ndockerfile = 'none/{name}'\n"
        );
    }
    let mut server = Server::with(&format!("{SETTINGS}{others}")).await;
    let work = install(&server);
    let url = format!(
        "http://ann:{}@{}/git/{APP}.git",
        server.token(),
        server.agent().address
    );
    for (version, door) in [("v1", "origin"), ("v2", url.as_str())] {
        commit(&work, version, "");
        let said = git(&work, &["push", door, "main"]);
        for app in ["broken", "hello", "lame"] {
            assert!(
                said.contains(&format!("remote: --- {app}: deployment `d")),
                "{said}"
            );
        }
        for app in ["broken", "lame"] {
            let failed = said.lines().any(|line| {
                line.starts_with("remote: Error: deployment `")
                    && line.contains(&format!("of `{app}` failed"))
            });
            assert!(failed, "{said}");
        }
        assert!(said.contains("remote: `hello` is live with"), "{said}");
    }
    server.stop().await;
}

/// An sshd whose only key may do nothing but what `command` says. Dropped, it ends.
struct Sshd {
    process: Child,
    port: u16,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Makes the keys `host` and `key` in `folder`; `None` where no sshd can be run.
fn sshd(folder: &Path, command: &str) -> Option<Sshd> {
    let program = Path::new("/usr/sbin/sshd");
    let is_root = rustix::process::geteuid().is_root();
    if !program.exists() || !is_root || Command::new("ssh").arg("-V").output().is_err() {
        tool::skip("it needs root and /usr/sbin/sshd (apt-get install openssh-server)");
        return None;
    }
    // sshd separates privileges there; systemd makes it on a machine that runs it.
    std::fs::create_dir_all("/run/sshd").unwrap();
    for name in ["host", "key"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(folder.join(name))
            .status();
        assert!(made.unwrap().success());
    }
    let key = std::fs::read_to_string(folder.join("key.pub")).unwrap();
    let line = format!("restrict,command=\"{command}\" {key}");
    std::fs::write(folder.join("authorized"), line).unwrap();
    let port = free_address().port();
    let at = folder.display();
    let config = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\n\
         StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n\
         PasswordAuthentication no\n"
    );
    std::fs::write(folder.join("config"), config).unwrap();
    let mut process = Command::new(program)
        .args(["-D", "-e", "-f"])
        .arg(folder.join("config"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let far = Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(process.try_wait().unwrap().is_none(), "sshd has ended");
        assert!(Instant::now() < far, "sshd does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(Sshd { process, port })
}

#[tokio::test(flavor = "multi_thread")]
async fn over_ssh_a_key_may_push_to_its_repository_and_do_nothing_else() {
    let mut server = Server::start().await;
    let work = install(&server);
    let repo = server.stage.repo.display().to_string();
    git(
        &server.stage.repo,
        &["config", "receive.advertisePushOptions", "true"],
    );
    let keys = server.stage.folder.join("keys");
    std::fs::create_dir(&keys).unwrap();
    let Some(sshd) = sshd(&keys, &format!("git-receive-pack {repo}")) else {
        return;
    };
    let ssh = format!(
        "ssh -F /dev/null -i {} -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
         -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
        keys.join("key").display()
    );
    git(&work, &["config", "core.sshCommand", &ssh]);
    // Whatever it asks for, this is what it gets.
    let url = format!("ssh://root@127.0.0.1:{}/somewhere/else.git", sshd.port);
    git(&work, &["remote", "add", "server", &url]);
    commit(&work, "v1", "");
    let said = git(&work, &["push", "server", "main"]);
    assert!(
        said.contains("remote: `hello` is live with `cutover/hello:"),
        "{said}"
    );
    assert_eq!(server.version().await, "v1");

    commit(&work, "v2", "");
    let said = git(&work, &["push", "-o", "cutover.skip", "server", "main"]);
    assert!(
        said.contains("remote: refs/heads/main: skipped: ") && said.contains("cutover.skip"),
        "{said}"
    );
    assert_eq!(server.version().await, "v1");
    commit(&work, "v3", "");
    let options = [
        "-o",
        "cutover.wait=false",
        "-o",
        "cutover.no-cache",
        "-o",
        "cutover.pull",
    ];
    let said = git(
        &work,
        &[&["push"], &options[..], &["server", "main"]].concat(),
    );
    assert!(said.contains("see `cutover show"), "{said}");
    assert!(!said.contains("is live"), "{said}");
    let id = said.split('`').nth(1).unwrap();
    assert_eq!(server.ended(id).await.0.state, "live");
    assert_eq!(server.version().await, "v3");

    let mut shell = Command::new("ssh");
    let words: Vec<&str> = ssh.split(' ').skip(1).collect();
    shell.args(words).args(["-p", &sshd.port.to_string()]);
    let output = shell
        .args(["root@127.0.0.1", "echo mine"])
        .stdin(Stdio::null())
        .output();
    let output = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
    assert!(
        !output.contains("mine") && output.contains("refs/heads/main"),
        "{output}"
    );
    server.stop().await;
}
