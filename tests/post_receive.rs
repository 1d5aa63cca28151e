//! A push straight over git to a bare repository on the machine: the pusher sees the log and how it
//! ended.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Server, files};

/// Runs git; its output, stderr last. Panics unless it succeeds.
fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command
        .current_dir(folder)
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env_remove("GIT_DIR");
    let output = command.output().expect("git can be run");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "git {arguments:?}: {said}");
    said
}

/// Installs the hook as its first lines say, and clones the repository.
fn install(server: &Server) -> std::path::PathBuf {
    let repo = &server.stage.repo;
    let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks/post-receive");
    std::fs::create_dir_all(repo.join("hooks")).unwrap();
    std::fs::copy(hook, repo.join("hooks/post-receive")).unwrap();
    let config = server.stage.config.to_str().unwrap();
    git(repo, &["config", "cutover.config", config]);
    git(repo, &["config", "cutover.program", common::CUTOVER]);
    let work = server.stage.folder.join("work");
    let (repo, folder) = (repo.to_str().unwrap(), work.to_str().unwrap());
    git(&server.stage.folder, &["clone", "-q", repo, folder]);
    git(&work, &["checkout", "-q", "-B", "main"]);
    work
}

fn commit(work: &Path, version: &str, behaviour: &str) {
    use std::os::unix::fs::PermissionsExt;
    for file in files(version, behaviour) {
        let path = work.join(&file.path);
        std::fs::write(&path, &file.bytes).unwrap();
        let mode = std::fs::Permissions::from_mode(file.mode & 0o777);
        std::fs::set_permissions(&path, mode).unwrap();
    }
    git(work, &["add", "-A"]);
    git(work, &["commit", "-q", "-m", version]);
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

    // Nor is what asks for being left alone.
    commit(&work, "v2b\n\nNothing of interest. [skip deploy]", "");
    let said = git(&work, &["push", "origin", "main"]);
    assert!(
        said.contains("the head commit says `[skip deploy]`"),
        "{said}"
    );

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
