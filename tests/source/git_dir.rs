//! The `.git` of a build context.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cutover::config::{Repo, Source};
use cutover::source::{Commit, Mirror, Revision};
use git2::{ObjectType, Signature, Time};
use tokio_util::sync::CancellationToken;

use crate::build::File::{Program, Text};
use crate::build::{SCRATCH, Scene, read};
use crate::remote::http;
use crate::support::tool;

/// Two commits, of which the second has two tags.
fn commits(scene: &Scene) -> Commit {
    let first = scene.commit(&[("Dockerfile", Text(SCRATCH))]);
    let commit = scene.commit(&[
        ("Dockerfile", Text(SCRATCH)),
        (".gitattributes", Text("*.bat eol=crlf\n")),
        ("a/b/c", Text("c")),
        ("a/run", Program("#!/bin/sh\n")),
        ("x.bat", Text("echo\n")),
    ]);
    let who = Signature::new("Ann", "ann@example.com", &Time::new(1, 0)).unwrap();
    let object = |commit: &Commit| {
        let id = git2::Oid::from_str(commit.id.as_str()).unwrap();
        scene
            .origin
            .find_object(id, Some(ObjectType::Commit))
            .unwrap()
    };
    let (old, new) = (object(&first), object(&commit));
    scene.origin.tag_lightweight("v0.9", &old, false).unwrap();
    scene.origin.tag_lightweight("plain", &new, false).unwrap();
    scene.origin.tag("v1.0", &new, &who, "One", false).unwrap();
    commit
}

fn bytes(scene: &Scene, mirror: &Mirror, commit: &Commit) -> Vec<u8> {
    let context = read(mirror, commit, &scene.settings).unwrap();
    let mut bytes = Vec::new();
    context.send(&mut bytes).unwrap();
    bytes
}

fn git(folder: &Path, words: &[&str]) -> String {
    let mut git = Command::new("git");
    git.env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    let said = git.arg("-C").arg(folder).args(words).output().unwrap();
    let (out, err) = (said.stdout, said.stderr);
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(said.status.success(), "{words:?}: {}", text(&err));
    text(&out)
}

fn check(tar: &[u8], commit: &Commit) {
    let folder = tempfile::tempdir().unwrap();
    tar::Archive::new(tar).unpack(folder.path()).unwrap();
    let git = |words: &[&str]| git(folder.path(), words);
    assert_eq!(git(&["rev-parse", "HEAD"]), commit.id.as_str());
    assert_eq!(git(&["describe", "--dirty"]), "v1.0");
    assert_eq!(git(&["tag", "--points-at"]), "plain\nv1.0");
    assert_eq!(git(&["tag"]), "plain\nv1.0");
    assert_eq!(git(&["log", "--format=%an"]), "Ann");
    assert_eq!(git(&["status", "--porcelain"]), "");
    std::fs::write(folder.path().join("a/b/c"), "d").unwrap();
    assert_eq!(git(&["describe", "--dirty"]), "v1.0-dirty");
}

#[tokio::test(flavor = "multi_thread")]
async fn git_knows_in_a_build_which_commit_it_is() {
    if tool::find("git", "git").is_none() {
        return;
    }
    let mut scene = Scene::new().await;
    let commit = commits(&scene);
    assert!(
        !scene
            .paths(&commit)
            .iter()
            .any(|path| path.starts_with(".git/"))
    );
    scene.settings.git_dir = true;
    let local = bytes(&scene, &scene.mirror(), &commit);
    check(&local, &commit);
    assert_eq!(bytes(&scene, &scene.mirror(), &commit), local);

    // A mirror has no tags until it is asked for them.
    let folder = scene.folder.path();
    let address = http(folder, None).await;
    let repo = Repo::Http(format!("http://{address}/origin.git"));
    let mirror = Mirror::new(folder.join("remote.git"), repo, Source::default());
    tokio::task::block_in_place(|| {
        let far = Instant::now() + Duration::from_secs(40);
        let (revision, none) = (Revision::Branch("main".into()), CancellationToken::new());
        mirror.fetch(&revision, &|_| {}, &none, far).unwrap();
        assert_eq!(bytes(&scene, &mirror, &commit), local);
        // A tag that is there no more.
        scene.origin.tag_delete("plain").unwrap();
        let tar = bytes(&scene, &mirror, &commit);
        let folder = tempfile::tempdir().unwrap();
        tar::Archive::new(&*tar).unpack(folder.path()).unwrap();
        assert_eq!(git(folder.path(), &["tag"]), "v1.0");
    });

    // What is ignored is not there.
    let ignoring = |rules| {
        scene.commit(&[
            ("Dockerfile", Text(SCRATCH)),
            (".dockerignore", Text(rules)),
        ])
    };
    let none = ignoring(".git\n");
    assert_eq!(scene.paths(&none), [".dockerignore", "Dockerfile"]);
    let some = ignoring(".git\n!.git/HEAD\n");
    let expected = [".dockerignore", ".git", ".git/HEAD", "Dockerfile"];
    assert_eq!(scene.paths(&some), expected);
    scene.clean_up().await;
}
