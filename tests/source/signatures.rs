//! Commits that have to be signed.

use std::path::Path;
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
    let keys = |all: &[&String]| Signers::Keys(all.iter().map(|it| it.trim().to_owned()).collect());
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
