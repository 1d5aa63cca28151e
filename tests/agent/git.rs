//! git as a person runs it, without this machine's configuration.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::server::{APP, Server, files};
use crate::support::tool;

/// Runs git. Whether it succeeded, and its output, stderr last.
pub fn try_git(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("git")
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("GIT_DIR")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
        .args(arguments)
        .output()
        .expect("git can be run");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}

/// Runs git; its output, stderr last. Panics unless it succeeds.
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let (good, said) = try_git(folder, arguments);
    assert!(good, "git {arguments:?}: {said}");
    said
}

/// Commits the sample app in this version, as a whole.
pub fn commit(work: &Path, version: &str, behaviour: &str) {
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

/// An empty work tree, and the address at which the agent takes pushes for the app, whose repository the first of
/// them makes. `None`: there is no git.
pub fn work_tree(server: &mut Server) -> Option<(TempDir, String)> {
    if Command::new("git").arg("version").output().is_err() {
        tool::skip("there is no `git` (apt-get install git)");
        return None;
    }
    std::fs::remove_dir_all(&server.stage.repo).unwrap();
    let (address, token) = (server.agent().address, server.token());
    let work = tempfile::tempdir().unwrap();
    git(work.path(), &["init", "-q", "-b", "main"]);
    Some((work, format!("http://ann:{token}@{address}/git/{APP}.git")))
}
