//! What Docker's own client sends of a clean clone, and what a build gets of the commit: the same, for many
//! made-up trees and ignore files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::response::IntoResponse;
use tokio::net::UnixListener;
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::build::{File, SCRATCH, Scene, listed, read};
use crate::support::tool;

const TREES: u64 = 200;
const NAMES: [&str; 14] = [
    "a",
    "b",
    "lib",
    "src",
    "a.txt",
    "b.txt",
    "README.md",
    ".env",
    ".hidden",
    "x y",
    "ü",
    "a[1]",
    "#x",
    "!y",
];
const PATTERNS: [&str; 30] = [
    "a",
    "/a",
    "a/",
    "./a",
    "*",
    "**",
    "*.txt",
    "**/*.txt",
    "**/b",
    "a/**",
    "a/*",
    "*/b",
    "lib/**/b",
    "a?txt",
    "[ab]",
    "[^a]",
    "[a-c].txt",
    ".*",
    "a/../b",
    "# no",
    " b ",
    "\\#x",
    "\\!y",
    "x y",
    "x\\ y",
    "ü",
    "a\\[1\\]",
    "**a",
    "src/*/*",
    "[",
];
const EXCEPTIONS: [&str; 10] = [
    "!a",
    "!b",
    "!lib/a",
    "!lib/a/b",
    "! src/a ",
    "!lib/*.txt",
    "!README.md",
    "!/a/b.txt",
    "!*",
    "!lib/src/",
];

/// As good as any for trees, and the same each time (Steele's SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % limit as u64) as usize
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Made {
    Text(String),
    Program(String),
    Link(String),
}

/// Files by path, none of which is a folder of another.
fn tree(random: &mut Random) -> BTreeMap<String, Made> {
    let mut files = BTreeMap::new();
    for number in 0..4 + random.below(20) {
        let depth = 1 + random.below(4);
        let parts: Vec<_> = (0..depth).map(|_| random.one(&NAMES)).collect();
        let path = parts.join("/");
        let meets = |other: &String| {
            let within = |a: &str, b: &str| a == b || a.starts_with(&format!("{b}/"));
            within(other, &path) || within(&path, other)
        };
        if files.keys().any(meets) {
            continue;
        }
        let made = match random.below(6) {
            0 => Made::Program(format!("#!/bin/sh\necho {number}\n")),
            1 => Made::Link(["a", "../b", "./lib", "nowhere"][random.below(4)].to_owned()),
            2 => Made::Text(String::new()),
            _ => Made::Text(format!("{number}\n").repeat(1 + random.below(300))),
        };
        files.insert(path, made);
    }
    let mut rules = String::new();
    for _ in 0..random.below(6) {
        rules.push_str(match random.below(3) {
            0 => random.one(&EXCEPTIONS),
            _ => random.one(&PATTERNS),
        });
        rules.push('\n');
    }
    if !rules.is_empty() {
        files.insert(".dockerignore".into(), Made::Text(rules));
    }
    files.insert("Dockerfile".into(), Made::Text(SCRATCH.to_owned()));
    files
}

/// As a clone has them.
fn check_out(files: &BTreeMap<String, Made>, folder: &Path) {
    for (path, made) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let (text, mode) = match made {
            Made::Text(text) => (text, 0o644),
            Made::Program(text) => (text, 0o755),
            Made::Link(target) => {
                std::os::unix::fs::symlink(target, path).unwrap();
                continue;
            }
        };
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

type Listed = BTreeMap<String, (u32, String)>;

/// By path, with all the folders that any of it is in. Without the Dockerfile and .dockerignore: this
/// protocol sends them even if they are ignored.
fn all(entries: impl IntoIterator<Item = (String, u32, String)>) -> Listed {
    let mut all = Listed::new();
    for (path, mode, content) in entries {
        let path = path.trim_end_matches('/');
        if path == "Dockerfile" || path == ".dockerignore" {
            continue;
        }
        for (slash, _) in path.match_indices('/') {
            all.entry(path[..slash].to_owned())
                .or_insert((0o755, String::new()));
        }
        all.insert(path.to_owned(), (mode & 0o777, content));
    }
    all
}

fn sent(tar: &[u8]) -> Listed {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mode = entry.header().mode().unwrap();
        let content = match entry.link_name().unwrap() {
            Some(target) => target.display().to_string(),
            None => std::io::read_to_string(&mut entry).unwrap(),
        };
        (path, mode, content)
    });
    all(entries.collect::<Vec<_>>())
}

/// Takes what clients send to be built, and builds nothing.
fn engine(socket: &Path) -> mpsc::UnboundedReceiver<Bytes> {
    let (contexts, receiver) = mpsc::unbounded_channel();
    let answer = move |request: Request| {
        let contexts = contexts.clone();
        async move {
            let is_build = request.uri().path().ends_with("/build");
            let body = to_bytes(request.into_body(), 64 << 20).await.unwrap();
            if is_build {
                contexts.send(body).unwrap();
                return "{\"error\":\"seen\",\"errorDetail\":{\"message\":\"seen\"}}"
                    .into_response();
            }
            let about = [
                ("API-Version", "1.41"),
                ("OSType", "linux"),
                ("Builder-Version", "1"),
            ];
            (about, "OK").into_response()
        }
    };
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    receiver
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_gets_what_dockers_client_would_send_of_a_clean_clone() {
    let Some(docker) = tool::find("docker", "docker-cli") else {
        return;
    };
    let scene = Scene::new().await;
    let socket = scene.folder.path().join("engine.sock");
    let mut contexts = engine(&socket);
    let mut refused = 0;
    for seed in 0..TREES {
        let files = tree(&mut Random(seed));
        let clone = scene.folder.path().join(format!("clone-{seed}"));
        check_out(&files, &clone);
        let client = Command::new(&docker)
            .args(["build", "."])
            .current_dir(&clone)
            .env("DOCKER_HOST", format!("unix://{}", socket.display()))
            .env("DOCKER_BUILDKIT", "0")
            .env("HOME", scene.folder.path())
            .env_remove("DOCKER_CONTEXT")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let client = tokio::time::timeout(Duration::from_secs(60), client).await;
        let said = String::from_utf8_lossy(&client.unwrap().unwrap().stderr).into_owned();
        let theirs = contexts.try_recv().ok().map(|tar| sent(&tar));

        let named = files.iter().map(|(path, made)| {
            let file = match made {
                Made::Text(text) => File::Text(text),
                Made::Program(text) => File::Program(text),
                Made::Link(target) => File::Link(target),
            };
            (path.as_str(), file)
        });
        let commit = scene.commit(&named.collect::<Vec<_>>());
        let ours = read(&scene.mirror(), &commit, &scene.settings);
        let ours = ours.and_then(|context| listed(&context)).map(all);
        let rules = files.get(".dockerignore");
        match (ours, theirs) {
            (Ok(ours), Some(theirs)) => assert_eq!(ours, theirs, "{seed}: {rules:?}"),
            (Err(_), None) => refused += 1,
            (ours, theirs) => panic!("{seed}: {rules:?}\n{ours:?}\n{theirs:?}\n{said}"),
        }
        fs::remove_dir_all(clone).unwrap();
    }
    // Some have a pattern that is none, most have not.
    assert!((1..TREES / 2).contains(&refused), "{refused}");
    scene.clean_up().await;
}
