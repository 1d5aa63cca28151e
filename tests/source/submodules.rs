//! Submodules of real repositories, on this machine and over http.

use std::path::Path;
use std::time::{Duration, Instant};

use cutover::config::{Repo, Source};
use cutover::source::{Mirror, Revision};
use git2::{Oid, Repository, Signature};
use tokio_util::sync::CancellationToken;

use crate::build::File::{Submodule, Text};
use crate::build::{SCRATCH, Scene, listed, lost, read};
use crate::remote::{TOKEN, http, with_token};
use crate::support::tool;

/// A commit of these files, and of submodules, on the branch `main` of a bare repository.
fn commit(git: &Path, files: &[(&str, &str)], submodules: &[(&str, Oid)]) -> Oid {
    let git = Repository::init_bare(git).unwrap();
    let mut tree = git.treebuilder(None).unwrap();
    for (name, text) in files {
        let blob = git.blob(text.as_bytes()).unwrap();
        tree.insert(name, blob, 0o100644).unwrap();
    }
    for (name, id) in submodules {
        tree.insert(name, *id, 0o160000).unwrap();
    }
    let tree = git.find_tree(tree.write().unwrap()).unwrap();
    let who = Signature::now("Ann", "ann@example.com").unwrap();
    let parent = git.find_reference("refs/heads/main").ok();
    let parent = parent.map(|tip| tip.peel_to_commit().unwrap());
    let parents: Vec<_> = parent.iter().collect();
    git.commit(Some("refs/heads/main"), &who, &who, "test", &tree, &parents)
        .unwrap()
}

fn modules(of: &[(&str, &str)]) -> String {
    let one = |(path, url): &(&str, &str)| {
        format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n")
    };
    of.iter().map(one).collect()
}

/// An app with a submodule that has one itself; the recorded commits are not the tips.
fn nested(scene: &Scene) -> cutover::source::Commit {
    let folder = scene.folder.path();
    let deep = commit(&folder.join("deep.git"), &[("deep", "1")], &[]);
    commit(&folder.join("deep.git"), &[("deep", "2")], &[]);
    let below = modules(&[("sub", "../deep.git")]);
    let files = [(".gitmodules", below.as_str()), ("lib", "1"), ("x.md", "")];
    let lib = commit(&folder.join("lib.git"), &files, &[("sub", deep)]);
    commit(&folder.join("lib.git"), &[("lib", "2")], &[]);
    scene.commit(&[
        ("Dockerfile", Text(SCRATCH)),
        (".dockerignore", Text("**/*.md\nDockerfile\n.git*\n")),
        (
            ".gitmodules",
            Text(&modules(&[("vendor/lib", "../lib.git")])),
        ),
        ("vendor/lib", Submodule(lib)),
    ])
}

fn contents(
    scene: &Scene,
    mirror: &Mirror,
    commit: &cutover::source::Commit,
) -> Vec<(String, String)> {
    let context = read(mirror, commit, &scene.settings).unwrap();
    let mut all: Vec<_> = (listed(&context).unwrap().into_iter())
        .map(|(path, _, text)| (path.trim_end_matches('/').to_owned(), text))
        .collect();
    all.sort();
    all
}

const EXPECTED: [(&str, &str); 7] = [
    (".dockerignore", "**/*.md\nDockerfile\n.git*\n"),
    ("vendor", ""),
    ("vendor/lib", ""),
    ("vendor/lib/.gitmodules", ""),
    ("vendor/lib/lib", "1"),
    ("vendor/lib/sub", ""),
    ("vendor/lib/sub/deep", "1"),
];

fn assert_expected(found: Vec<(String, String)>) {
    let found = found.iter().map(|(path, text)| {
        let text = if path.ends_with(".gitmodules") {
            ""
        } else {
            text
        };
        (path.as_str(), text)
    });
    assert_eq!(found.collect::<Vec<_>>(), EXPECTED);
}

#[tokio::test]
async fn submodules_are_part_of_the_context_at_their_recorded_commits() {
    let scene = Scene::new().await;
    let commit = nested(&scene);
    assert_expected(contents(&scene, &scene.mirror(), &commit));
    // Another commit of it is another image.
    let built = scene.build(&commit, "one").await.unwrap();
    let folder = scene.folder.path();
    let lib = super::submodules::commit(&folder.join("lib.git"), &[("lib", "3")], &[]);
    let commit = scene.commit(&[
        ("Dockerfile", Text(SCRATCH)),
        (
            ".gitmodules",
            Text(&modules(&[("vendor/lib", "../lib.git")])),
        ),
        ("vendor/lib", Submodule(lib)),
    ]);
    let other = scene.build(&commit, "two").await.unwrap();
    assert_ne!(built.cache_key, other.cache_key);
    scene.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_are_fetched_with_the_apps_token_even_from_the_past() {
    if tool::find("git", "git").is_none() {
        return;
    }
    let scene = Scene::new().await;
    let id = nested(&scene).id;
    let folder = scene.folder.path();
    let address = http(folder, Some(TOKEN)).await;
    let repo = Repo::Http(format!("http://{address}/origin.git"));
    let mirror = Mirror::new(folder.join("remote.git"), repo, with_token(folder, TOKEN));
    let far = Instant::now() + Duration::from_secs(40);
    let none = CancellationToken::new();
    tokio::task::block_in_place(|| {
        let revision = Revision::Branch("main".into());
        let commit = mirror.fetch(&revision, &|_| {}, &none, far).unwrap();
        assert_eq!(commit.id, id);
        assert_expected(contents(&scene, &mirror, &commit));
        // What is here is not asked for again.
        for name in ["lib.git", "deep.git"] {
            std::fs::rename(folder.join(name), folder.join(format!("{name}.gone"))).unwrap();
        }
        assert_expected(contents(&scene, &mirror, &commit));
        // The app's own other files, and nothing of the submodules.
        let access = Source {
            without_submodules: true,
            ..with_token(folder, TOKEN)
        };
        let repo = Repo::Http(format!("http://{address}/origin.git"));
        let mirror = Mirror::new(folder.join("remote.git"), repo, access);
        let found = contents(&scene, &mirror, &commit);
        let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, [".dockerignore", "vendor", "vendor/lib"]);
    });
}

#[tokio::test]
async fn a_submodule_that_is_not_allowed_is_refused_by_name() {
    let scene = Scene::new().await;
    for (url, why, hint) in [
        (
            "https://192.0.2.1/x.git",
            "another host, `192.0.2.1`",
            "source.hosts.\"192.0.2.1\"",
        ),
        ("/etc", "a path of this machine", "on this machine"),
        ("../gone.git", "cannot be reached", "can reach it"),
    ] {
        let commit = scene.commit(&[
            ("Dockerfile", Text(SCRATCH)),
            (".gitmodules", Text(&modules(&[("lib", url)]))),
            ("lib", Submodule(lost())),
        ]);
        let error = read(&scene.mirror(), &commit, &scene.settings)
            .err()
            .unwrap();
        let said = error.to_string();
        assert!(
            said.contains("submodule `lib`") && said.contains(why),
            "{said}"
        );
        assert!(error.hint().contains(hint), "{}", error.hint());
    }
}

#[tokio::test]
async fn submodules_within_submodules_have_an_end() {
    let scene = Scene::new().await;
    let path = scene.folder.path().join("chain.git");
    let mut tip = commit(&path, &[("end", "")], &[]);
    let itself = modules(&[("next", "../chain.git")]);
    for _ in 0..10 {
        tip = commit(&path, &[(".gitmodules", &itself)], &[("next", tip)]);
    }
    let commit = scene.commit(&[
        ("Dockerfile", Text(SCRATCH)),
        (".gitmodules", Text(&modules(&[("chain", "../chain.git")]))),
        ("chain", Submodule(tip)),
    ]);
    let error = read(&scene.mirror(), &commit, &scene.settings)
        .err()
        .unwrap();
    assert_eq!(error.code(), "submodule", "{error}");
    assert!(error.to_string().contains("within each other"), "{error}");
}
