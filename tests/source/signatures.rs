//! Commits that have to be signed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cutover::config::{Repo, Signers, Source};
use cutover::source::{Commit, Mirror, Revision, SourceError};
use git2::{ObjectType, Repository};
use tokio_util::sync::CancellationToken;

use crate::support::tool;

fn run(program: &str, folder: &Path, arguments: &[&str]) {
    let done = Command::new(program)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env_remove("GIT_DIR")
        .args(arguments)
        .output()
        .unwrap();
    assert!(done.status.success(), "{arguments:?}: {done:?}");
}

fn key(folder: &Path, name: &str) -> String {
    let owner = format!("{name}@example.com");
    let make = ["-q", "-t", "ed25519", "-N", "", "-C", &owner, "-f", name];
    run("ssh-keygen", folder, &make);
    std::fs::read_to_string(folder.join(format!("{name}.pub"))).unwrap()
}

fn fetch(
    folder: &Path,
    signers: Signers,
    wanted: Revision,
) -> (Result<Commit, SourceError>, String) {
    let source = Source {
        signers: Some(signers),
        ..Source::default()
    };
    let repo = Repo::Local(folder.join("repo"));
    let mirror = Mirror::new(folder.join("mirror.git"), repo, source);
    let said = std::cell::RefCell::new(String::new());
    let log = |text: &str| said.borrow_mut().push_str(text);
    let end = Instant::now() + Duration::from_secs(30);
    let fetched = mirror.fetch(&wanted, &log, &CancellationToken::new(), end);
    (fetched, said.into_inner())
}

#[test]
fn only_commits_that_the_right_key_signed_are_fetched() {
    for (program, package) in [("ssh-keygen", "openssh-client"), ("git", "git")] {
        if tool::find(program, package).is_none() {
            return;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (ann, bob) = (key(folder, "ann"), key(folder, "bob"));
    let repo = folder.join("repo");
    std::fs::create_dir(&repo).unwrap();
    run("git", &repo, &["init", "-q", "-b", "main"]);
    let commit = |options: &[&str]| {
        let who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"];
        let signing = ["-c", "gpg.format=ssh", "-c", "user.signingkey=../ann.pub"];
        let what = ["commit", "-q", "--allow-empty", "-m", "First"];
        run("git", &repo, &[&who[..], &signing, &what, options].concat());
    };
    commit(&["-S"]);
    let main = || Revision::Branch("main".into());
    let keys = |all: &[&String]| Signers::Keys {
        ssh: all.iter().map(|it| it.trim().to_owned()).collect(),
        gpg: Vec::new(),
    };
    let (good, said) = fetch(folder, keys(&[&bob, &ann]), main());
    let good = good.unwrap();
    assert!(said.contains("signed by ann@example.com"), "{said}");
    let allowed = folder.join("allowed");
    std::fs::write(&allowed, format!("ann {ann}")).unwrap();
    fetch(folder, Signers::File(allowed), main()).0.unwrap();

    // Somebody else's key, another content under the same signature, no signature, no list.
    let is_unsigned = |signers, wanted| {
        let (fetched, _) = fetch(folder, signers, wanted);
        let error = fetched.unwrap_err();
        assert!(matches!(error, SourceError::Unsigned { .. }), "{error}");
        error.to_string()
    };
    assert!(is_unsigned(keys(&[&bob]), main()).contains("none of those"));
    let git = Repository::open(&repo).unwrap();
    let odb = git.odb().unwrap();
    let oid = git2::Oid::from_str(good.id.as_str()).unwrap();
    let raw = String::from_utf8(odb.read(oid).unwrap().data().to_vec()).unwrap();
    let forged = raw.replace("First", "Forged");
    let forged = odb.write(ObjectType::Commit, forged.as_bytes()).unwrap();
    git.reference("refs/heads/forged", forged, true, "")
        .unwrap();
    let said = is_unsigned(keys(&[&ann]), Revision::Branch("forged".into()));
    assert!(said.contains("not valid"), "{said}");
    commit(&["--no-gpg-sign"]);
    assert!(is_unsigned(keys(&[&ann]), main()).contains("no signature"));
    is_unsigned(
        Signers::File(folder.join("gone")),
        Revision::Commit(good.id),
    );
}

/// A home of GnuPG's, with keys; gone with its agent.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("cutover-gpg-")
            .tempdir_in("/tmp");
        Self(folder.unwrap())
    }

    fn gpg(&self, arguments: &[&str]) -> Vec<u8> {
        let done = Command::new("gpg")
            .env("GNUPGHOME", self.0.path())
            .args(["--batch", "--quiet", "--yes", "--passphrase", ""])
            .args(arguments)
            .output()
            .unwrap();
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        done.stdout
    }

    /// Makes a key, and exports it.
    fn key(&self, name: &str, options: &[&str], until: &str) -> PathBuf {
        let owner = format!("{name} <{name}@example.com>");
        let make = ["--quick-generate-key", &owner, "ed25519", "sign", until];
        self.gpg(&[options, &make].concat());
        self.export(name, &["--armor"])
    }

    fn export(&self, name: &str, options: &[&str]) -> PathBuf {
        let owner = format!("{name}@example.com");
        let bytes = self.gpg(&[options, &["--export", &owner]].concat());
        let path = self.0.path().join(format!("{name}{}.asc", options.len()));
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let mut end = Command::new("gpgconf");
        end.env("GNUPGHOME", self.0.path()).args(["--kill", "all"]);
        let _ = end.status();
    }
}

#[test]
fn openpgp_keys_in_force_count_too() {
    for (program, package) in [("gpg", "gnupg"), ("gpgv", "gpgv"), ("git", "git")] {
        if tool::find(program, package).is_none() {
            return;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let home = Home::new();
    let then = ["--faked-system-time", "20200101T000000"];
    let (ann, bob) = (home.key("ann", &[], "1y"), home.key("bob", &[], "1y"));
    let eve = home.key("eve", &then, "1y");
    let repo = folder.join("repo");
    std::fs::create_dir(&repo).unwrap();
    run("git", &repo, &["init", "-q", "-b", "main"]);
    let program = home.0.path().join("then");
    let shown = home.0.path().display();
    for (name, more) in [("now", ""), ("then", "--faked-system-time 20200201T000000")] {
        let script = format!("#!/bin/sh\nGNUPGHOME={shown} exec gpg {more} \"$@\"\n");
        let path = program.with_file_name(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let commit = |branch: &str, key: &str, when: &str| {
        let program = format!("gpg.program={}", program.with_file_name(when).display());
        let key = format!("user.signingkey={key}@example.com");
        let who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"];
        let signing = ["-c", "gpg.format=openpgp", "-c", &program, "-c", &key];
        run("git", &repo, &["checkout", "-q", "-B", branch]);
        let what = ["commit", "-q", "--allow-empty", "-S", "-m", branch];
        run("git", &repo, &[&who[..], &signing, &what].concat());
    };
    let gpg = |files: &[&PathBuf]| Signers::Keys {
        ssh: Vec::new(),
        gpg: files.iter().map(|it| (*it).clone()).collect(),
    };
    let branch = |name: &str| Revision::Branch(name.into());
    let why = |signers, name: &str| {
        let error = fetch(folder, signers, branch(name)).0.unwrap_err();
        assert!(matches!(error, SourceError::Unsigned { .. }), "{error}");
        error.to_string()
    };
    commit("main", "ann", "now");
    let (good, said) = fetch(folder, gpg(&[&bob, &ann]), branch("main"));
    good.unwrap();
    assert!(said.contains("signed by ann <ann@example.com>"), "{said}");
    let binary = home.export("ann", &[]);
    fetch(folder, gpg(&[&binary]), branch("main")).0.unwrap();

    assert!(why(gpg(&[&bob]), "main").contains("none of those"));
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    let ssh = Signers::Keys {
        ssh: vec![key.to_owned()],
        gpg: Vec::new(),
    };
    assert!(why(ssh, "main").contains("none of those"));
    let nothing = folder.join("nothing.asc");
    std::fs::write(&nothing, "no keys").unwrap();
    assert!(why(gpg(&[&nothing]), "main").contains("gpg --export"));
    // A key that has expired since, and one that was revoked.
    commit("old", "eve", "then");
    assert!(why(gpg(&[&eve]), "old").contains("expired"));
    let prints = home.gpg(&["--with-colons", "--list-keys", "ann@example.com"]);
    let prints = String::from_utf8(prints).unwrap();
    let print = prints
        .lines()
        .find_map(|it| it.strip_prefix("fpr:::::::::"));
    let print = print.unwrap().trim_end_matches(':');
    let revocation = home.0.path().join(format!("openpgp-revocs.d/{print}.rev"));
    let text = std::fs::read_to_string(&revocation).unwrap();
    std::fs::write(&revocation, text.replace(":-----BEGIN", "-----BEGIN")).unwrap();
    home.gpg(&["--import", &revocation.display().to_string()]);
    let revoked = home.export("ann", &["--armor", "--no-comments"]);
    assert!(why(gpg(&[&revoked]), "main").contains("revoked"));
    // Another content under the same signature.
    let git = Repository::open(&repo).unwrap();
    let odb = git.odb().unwrap();
    let oid = git.refname_to_id("refs/heads/main").unwrap();
    let raw = String::from_utf8(odb.read(oid).unwrap().data().to_vec()).unwrap();
    let forged = raw.replace("\nmain", "\nforged");
    let forged = odb.write(ObjectType::Commit, forged.as_bytes()).unwrap();
    git.reference("refs/heads/forged", forged, true, "")
        .unwrap();
    assert!(why(gpg(&[&ann]), "forged").contains("not valid"));
}
