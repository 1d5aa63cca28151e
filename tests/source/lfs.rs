//! Files of Git LFS, pushed by git-lfs itself, from a server in the test and from a repository on this
//! machine.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{self, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cutover::build::BuildError;
use cutover::config::{Repo, Source};
use cutover::source::{Commit, Mirror, Revision};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::build::File::Text;
use crate::build::{SCRATCH, Scene, listed, read};
use crate::remote::{TOKEN, http, repositories, with_token};
use crate::support::tool;

#[derive(Clone)]
struct Server {
    files: Arc<Mutex<HashMap<String, Bytes>>>,
    address: SocketAddr,
    /// Of the batch API, in place of what it would answer.
    refusal: Arc<Mutex<Option<StatusCode>>>,
}

/// As GitHub says it.
const QUOTA: &str = "This repository is over its data quota.";

async fn batch(
    State(server): State<Server>,
    headers: HeaderMap,
    Json(asked): Json<Value>,
) -> Response {
    let is_upload = asked["operation"] == "upload";
    if !is_upload && !headers.contains_key(header::AUTHORIZATION) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if let Some(status) = *server.refusal.lock() {
        return (status, Json(json!({ "message": QUOTA }))).into_response();
    }
    let files = server.files.lock();
    let objects = asked["objects"].as_array().unwrap().iter().map(|object| {
        let oid = object["oid"].as_str().unwrap();
        let action = json!({
            "href": format!("http://{}/files/{oid}", server.address),
            "header": {"X-Key": "key"},
        });
        match (is_upload, files.contains_key(oid)) {
            (true, true) => json!({"oid": oid, "size": object["size"]}),
            (true, false) => {
                json!({"oid": oid, "size": object["size"], "actions": {"upload": action}})
            }
            (false, true) => {
                json!({"oid": oid, "size": object["size"], "actions": {"download": action}})
            }
            (false, false) => json!({"oid": oid, "error": {"code": 404, "message": "not here"}}),
        }
    });
    let answer = json!({"transfer": "basic", "objects": objects.collect::<Vec<_>>()});
    let kind = [(header::CONTENT_TYPE, "application/vnd.git-lfs+json")];
    (kind, answer.to_string()).into_response()
}

async fn put(State(server): State<Server>, extract::Path(oid): extract::Path<String>, body: Bytes) {
    server.files.lock().insert(oid, body);
}

async fn give(
    State(server): State<Server>,
    extract::Path(oid): extract::Path<String>,
    headers: HeaderMap,
) -> Response {
    assert_eq!(headers["x-key"], "key");
    match server.files.lock().get(&oid) {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// An LFS server for `origin.git` beside git's own for the repositories in the folder.
async fn serve(folder: &Path) -> Server {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server {
        files: Arc::default(),
        address: listener.local_addr().unwrap(),
        refusal: Arc::default(),
    };
    let lfs = Router::new()
        .route("/origin.git/info/lfs/objects/batch", post(batch))
        .route("/files/{oid}", get(give).put(put))
        .with_state(server.clone());
    let app = lfs.merge(repositories(folder, Some(TOKEN)));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    server
}

/// Pushes a work tree with files of Git LFS to `origin.git`, and the files to where `lfs` says.
fn push(folder: &Path, remote: &str, lfs: Option<&str>) {
    let tree = folder.join("tree");
    let run = |program: &str, args: &[&str]| {
        let mut git = Command::new(program);
        git.current_dir(&tree).args(args).env("HOME", folder);
        let done = git.output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{args:?}: {said}");
    };
    std::fs::create_dir(&tree).unwrap();
    run("git", &["init", "-q", "-b", "main"]);
    run("git", &["config", "user.email", "ann@example.com"]);
    run("git", &["config", "user.name", "Ann"]);
    run("git", &["lfs", "install", "--local"]);
    run("git", &["lfs", "track", "*.bin"]);
    std::fs::create_dir(tree.join("app")).unwrap();
    std::fs::write(tree.join("app/Dockerfile"), SCRATCH).unwrap();
    std::fs::write(tree.join("app/big.bin"), big()).unwrap();
    std::fs::write(tree.join("app/same.bin"), big()).unwrap();
    std::fs::write(tree.join("app/small.bin"), "small").unwrap();
    run("git", &["add", "-A"]);
    run("git", &["commit", "-qm", "one"]);
    run("git", &["remote", "add", "origin", remote]);
    if let Some(lfs) = lfs {
        run("git", &["config", "lfs.url", lfs]);
        run(
            "git",
            &["config", &format!("lfs.{lfs}.locksverify"), "false"],
        );
    }
    run("git", &["push", "-q", "origin", "main"]);
}

fn big() -> String {
    "0123456789abcdef".repeat(20_000)
}

fn fetch(mirror: &Mirror) -> Commit {
    let far = Instant::now() + Duration::from_secs(40);
    let revision = Revision::Branch("main".into());
    (mirror.fetch(&revision, &|_| {}, &CancellationToken::new(), far)).unwrap()
}

fn contents(
    scene: &Scene,
    mirror: &Mirror,
    commit: &Commit,
) -> Result<Vec<(String, String)>, BuildError> {
    let context = read(mirror, commit, &scene.settings)?;
    let files = listed(&context)?.into_iter();
    let mut files: Vec<_> = files.map(|(path, _, text)| (path, text)).collect();
    files.sort();
    Ok(files)
}

fn expected() -> Vec<(String, String)> {
    let files = [
        ("Dockerfile", SCRATCH.to_owned()),
        ("big.bin", big()),
        ("same.bin", big()),
        ("small.bin", "small".to_owned()),
    ];
    files.map(|(path, text)| (path.to_owned(), text)).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_fetched_from_the_lfs_server_and_kept() {
    if tool::find("git", "git").is_none() || tool::find("git-lfs", "git-lfs").is_none() {
        return;
    }
    let mut scene = Scene::new().await;
    scene.settings.context = "app".into();
    let folder = scene.folder.path();
    let server = serve(folder).await;
    let origin = folder.join("origin.git");
    let lfs = format!("http://{}/origin.git/info/lfs", server.address);
    tokio::task::block_in_place(|| {
        push(folder, origin.to_str().unwrap(), Some(&lfs));
        assert_eq!(server.files.lock().len(), 2);
        // `.git` need not be written.
        let repo = Repo::Http(format!("http://{}/origin.git", server.address));
        let mirror =
            |name: &str| Mirror::new(folder.join(name), repo.clone(), with_token(folder, TOKEN));
        let (one, other) = (mirror("remote.git"), mirror("other.git"));
        let commit = fetch(&one);
        assert_eq!(contents(&scene, &one, &commit).unwrap(), expected());
        // Another content under the right name is not taken.
        let files = std::mem::take(&mut *server.files.lock());
        for oid in files.keys() {
            let wrong = Bytes::from("x".repeat(files[oid].len()));
            server.files.lock().insert(oid.clone(), wrong);
        }
        fetch(&other);
        let error = contents(&scene, &other, &commit).unwrap_err();
        assert_eq!(error.code(), "lfs_pointer", "{error}");
        assert!(error.to_string().contains("`big.bin`"), "{error}");
        assert!(error.to_string().contains("is another file"), "{error}");
        // What is not there is named.
        server.files.lock().clear();
        let error = contents(&scene, &other, &commit).unwrap_err();
        assert!(error.to_string().contains("not here"), "{error}");
        // A quota is not a mistake of the app's.
        for status in [403, 413, 429, 507, 509].map(|code| StatusCode::from_u16(code).unwrap()) {
            *server.refusal.lock() = Some(status);
            let error = contents(&scene, &other, &commit).unwrap_err();
            let said = error.to_string();
            assert!(
                said.contains(status.as_str()) && said.contains(QUOTA),
                "{said}"
            );
            assert!(error.hint().contains("quota"), "{said}: {}", error.hint());
        }
        // What is here is not asked for again.
        assert_eq!(contents(&scene, &one, &commit).unwrap(), expected());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_from_a_repository_on_this_machine() {
    if tool::find("git", "git").is_none() || tool::find("git-lfs", "git-lfs").is_none() {
        return;
    }
    let mut scene = Scene::new().await;
    scene.settings.context = "app".into();
    let folder = scene.folder.path();
    let origin = format!("file://{}", folder.join("origin.git").display());
    tokio::task::block_in_place(|| {
        push(folder, &origin, None);
        let mirror = scene.mirror();
        let commit = fetch(&mirror);
        assert_eq!(contents(&scene, &mirror, &commit).unwrap(), expected());
        std::fs::remove_dir_all(folder.join("origin.git/lfs")).unwrap();
        let error = contents(&scene, &mirror, &commit).unwrap_err();
        assert_eq!(error.code(), "lfs_pointer", "{error}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pointer_does_not_go_live_as_the_file() {
    let mut scene = Scene::new().await;
    let pointer = "version https://git-lfs.github.com/spec/v1\n\
                   oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n\
                   size 12345\n";
    let files = |ignore| {
        [
            (
                ".gitattributes",
                Text("*.png filter=lfs diff=lfs merge=lfs -text\n"),
            ),
            ("app/Dockerfile", Text(SCRATCH)),
            ("app/a.png", Text(pointer)),
            ("app/b.png", Text("a real one")),
            ("app/c.txt", Text(pointer)),
            ("elsewhere.png", Text(pointer)),
            ("app/.dockerignore", Text(ignore)),
        ]
    };
    scene.settings.context = "app".into();
    let commit = scene.commit(&files(""));
    let error = contents(&scene, &scene.mirror(), &commit).unwrap_err();
    let expected = "`a.png` is in git only as Git LFS pointers, and cannot be fetched: ";
    assert!(error.to_string().starts_with(expected), "{error}");
    let ignored = scene.commit(&files("*.png"));
    contents(&scene, &scene.mirror(), &ignored).unwrap();
    // A server without it.
    let commit = scene.commit(&files(""));
    let folder = scene.folder.path();
    let address = http(folder, None).await;
    let repo = Repo::Http(format!("http://{address}/origin.git"));
    tokio::task::block_in_place(|| {
        let mirror = Mirror::new(folder.join("remote.git"), repo, Source::default());
        fetch(&mirror);
        let error = contents(&scene, &mirror, &commit).unwrap_err();
        assert!(error.to_string().contains("it has no Git LFS"), "{error}");
    });
}
