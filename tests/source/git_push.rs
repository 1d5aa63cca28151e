//! `git push` over http with the real git, up to what the pusher sees.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::tool;
use axum::Router;
use cutover::api::git::{self, Found, Git, PendingPush, Repository};
use cutover::deploy::intake::Outcome;
use cutover::ids::DeploymentId;
use cutover::principal::{Principal, Requester, Role};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

const TOKEN: &str = "s3cret";

/// An agent's git paths, and a pusher's working copy.
struct Scene {
    folder: TempDir,
    address: SocketAddr,
    pushes: Arc<Mutex<Vec<PendingPush>>>,
    /// Kept open while a deployment is to run on.
    log: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
    /// Refs that `begin` was called with and `end` was not.
    open: Arc<AtomicUsize>,
}

/// The token is an administrator's; `reader` may only fetch.
fn principal(token: &str) -> Option<Principal> {
    let role = match token {
        TOKEN => Role::Admin,
        "reader" => Role::Read,
        _ => return None,
    };
    Some(Principal {
        role,
        ..Principal::admin(Requester::Token {
            token: role.as_str().to_owned(),
            from: None,
        })
    })
}

fn outcome(push: &PendingPush) -> Outcome {
    let main = push.git_ref == "refs/heads/main" && !push.skip;
    Outcome {
        git_ref: push.git_ref.clone(),
        app: Some(push.app.clone()),
        deployment: main.then(DeploymentId::new),
        reason: (!main).then(|| "left out".to_owned()),
        skipped: false,
    }
}

impl Scene {
    async fn new() -> Option<Self> {
        if Command::new("git")
            .args(["http-backend"])
            .env_clear()
            .output()
            .is_err()
        {
            tool::skip("there is no `git` (apt-get install git)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("repos/hello.git");
        let pushes = Arc::<Mutex<Vec<PendingPush>>>::default();
        let log = Arc::<Mutex<Option<oneshot::Receiver<()>>>>::default();
        let open = Arc::<AtomicUsize>::default();
        let (taken, held) = (pushes.clone(), log.clone());
        let (begun, ended) = (open.clone(), open.clone());
        let git = Git {
            repository: Box::new(move |name| match name {
                "hello" => Found::Repository(Repository {
                    app: "hello".parse().unwrap(),
                    path: path.clone(),
                    branch: "main".into(),
                    ref_policy: Arc::new(|git_ref| match git_ref {
                        "refs/heads/main" | "refs/heads/next" => Ok(()),
                        _ => Err("only main is deployed from here".into()),
                    }),
                }),
                "far" => Found::Elsewhere {
                    app: "far".parse().unwrap(),
                    address: "https://example.com/far.git".into(),
                },
                _ => Found::NoSuchApp,
            }),
            nearest: Box::new(|caller, name| {
                let hello = "hello".parse().unwrap();
                (name == "helo" && caller.sees(&hello)).then(|| hello.to_string())
            }),
            principal: Box::new(|token| Box::pin(async move { principal(&token) })),
            begin: Box::new(move |push| {
                begun.fetch_add(push.len(), SeqCst);
                Box::pin(async { Ok(()) })
            }),
            end: Box::new(move |push| {
                ended.fetch_sub(push.len(), SeqCst);
                Box::pin(async { Ok(()) })
            }),
            moved: Box::new(move |push| {
                let outcomes = push.iter().map(outcome).collect();
                taken.lock().unwrap().extend(push);
                Box::pin(async { Ok(outcomes) })
            }),
            follow: Box::new(move |_, _| {
                let (sender, receiver) = mpsc::channel(4);
                let hold = held.lock().unwrap().take();
                tokio::spawn(async move {
                    sender.send(b"#1 building\n".to_vec()).await.unwrap();
                    if let Some(hold) = hold {
                        let _ = hold.await;
                    }
                    let _ = sender.send(b"live\n".to_vec()).await;
                });
                receiver
            }),
        };
        let app = Router::new().nest("/git", git::router(git));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let scene = Self {
            folder,
            address,
            pushes,
            log,
            open,
        };
        std::fs::create_dir(scene.work()).unwrap();
        scene.git(&["init", "-q", "-b", "main"]);
        scene.commit("one");
        Some(scene)
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn url(&self, app: &str) -> String {
        format!("http://ann:{TOKEN}@{}/git/{app}.git", self.address)
    }

    fn git(&self, args: &[&str]) -> Output {
        command(&self.work()).args(args).output().unwrap()
    }

    fn commit(&self, text: &str) -> String {
        std::fs::write(self.work().join("file"), text).unwrap();
        self.git(&["add", "file"]);
        let made = self.git(&["commit", "-q", "-m", text]);
        assert!(made.status.success(), "{made:?}");
        let tip = self.git(&["rev-parse", "HEAD"]).stdout;
        String::from_utf8(tip).unwrap().trim().to_owned()
    }

    /// Runs git without blocking the server, which runs on this very runtime.
    async fn push(&self, args: &[&str]) -> (bool, String) {
        let url = self.url("hello");
        let mut all = vec!["push".to_owned()];
        let (options, refs): (Vec<&str>, Vec<&str>) =
            args.iter().partition(|arg| arg.starts_with('-'));
        all.extend(options.into_iter().map(str::to_owned));
        all.push(url);
        all.extend(refs.into_iter().map(str::to_owned));
        let work = self.work();
        run(work, all).await
    }

    /// Waits until no push is pending; the pusher's answer does not wait for that.
    async fn settled(&self) {
        let far = std::time::Instant::now() + Duration::from_secs(20);
        while self.open.load(SeqCst) > 0 {
            assert!(std::time::Instant::now() < far, "a push is still pending");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn pushed(&self) -> Vec<PendingPush> {
        std::mem::take(&mut self.pushes.lock().unwrap())
    }
}

fn command(folder: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]);
    git
}

async fn run(folder: PathBuf, args: Vec<String>) -> (bool, String) {
    let output = tokio::task::spawn_blocking(move || command(&folder).args(args).output().unwrap());
    let output = output.await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_push_makes_the_repository_and_the_pusher_sees_the_deployment() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let tip = scene.git(&["rev-parse", "HEAD"]).stdout;
    let (good, text) = scene.push(&["main"]).await;
    assert!(good, "{text}");
    for line in ["remote: #1 building", "remote: live", "main -> main"] {
        assert!(text.contains(line), "{text}");
    }
    let pushed = scene.pushed();
    assert_eq!(pushed.len(), 1);
    assert_eq!(
        pushed[0].commit.as_str(),
        String::from_utf8_lossy(&tip).trim()
    );
    assert_eq!(pushed[0].git_ref, "refs/heads/main");
    assert!(!pushed[0].no_cache);

    // More than curl sends in one piece, and forced.
    let noise: String = (0..400_000u64)
        .map(|i| format!("{:x}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    std::fs::write(scene.work().join("big"), noise).unwrap();
    scene.git(&["add", "big"]);
    scene.git(&["commit", "-q", "--amend", "-m", "big"]);
    let (good, text) = scene.push(&["--force", "main"]).await;
    assert!(
        good && text.contains("forced update") && text.contains("remote: live"),
        "{text}"
    );

    // And it can be cloned back.
    let clone = vec![
        "clone".into(),
        "-q".into(),
        scene.url("hello"),
        "copy".into(),
    ];
    let (good, text) = run(scene.folder.path().to_owned(), clone).await;
    assert!(good, "{text}");
    assert!(scene.folder.path().join("copy/big").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_deploy_branch_is_taken_and_it_stays() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    scene.git(&["tag", "v1"]);
    for (args, reason) in [
        (vec!["main:other"], "only main is deployed from here"),
        (vec!["v1"], "only main is deployed"),
        (
            vec!["main", "v1"],
            "pushed together with a ref that is refused",
        ),
    ] {
        let (good, text) = scene.push(&args).await;
        assert!(!good && text.contains(reason), "{args:?}: {text}");
        assert!(text.contains("[remote rejected]"), "{text}");
    }
    assert!(scene.pushed().is_empty());
    assert!(scene.push(&["main"]).await.0);
    let (good, text) = scene.push(&[":main"]).await;
    assert!(!good && text.contains("cannot be deleted"), "{text}");
    assert_eq!(scene.pushed().len(), 1);
    // Nothing new is no push.
    let (good, text) = scene.push(&["main"]).await;
    assert!(good && text.contains("up-to-date"), "{text}");
    assert!(scene.pushed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_token_gets_nowhere() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let at = scene.address;
    for url in [
        format!("http://ann:wrong@{at}/git/hello.git"),
        format!("http://{at}/git/hello.git"),
        format!("http://ann:wrong@{at}/git/nowhere.git"),
    ] {
        let (good, text) = run(scene.work(), vec!["push".into(), url, "main".into()]).await;
        assert!(!good, "{text}");
        let refused =
            text.contains("Authentication failed") || text.contains("could not read Username");
        assert!(refused, "{text}");
    }
    let cases = [
        ("far", "push there"),
        ("nowhere", "there is no app `nowhere`"),
        (
            "helo",
            "there is no app `helo`: did you mean `/git/hello.git`?",
        ),
    ];
    for (app, reason) in cases {
        let args = vec!["push".into(), scene.url(app), "main".into()];
        let (good, text) = run(scene.work(), args).await;
        assert!(!good && text.contains(reason), "{text}");
    }
    let args = vec!["fetch".into(), scene.url("hello")];
    let (good, text) = run(scene.work(), args).await;
    assert!(!good && text.contains("nothing has been pushed"), "{text}");
    assert!(scene.pushed().is_empty());
    assert!(!scene.folder.path().join("repos").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn push_options_change_what_happens() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let (good, text) = scene.push(&["--push-option=cutover.skp", "main"]).await;
    assert!(
        !good && text.contains("unknown option `cutover.skp`"),
        "{text}"
    );
    let (good, text) = scene.push(&["--push-option=cutover.skip", "main"]).await;
    assert!(good && text.contains("not deployed: left out"), "{text}");
    assert!(scene.pushed()[0].skip);
    scene.commit("two");
    let (good, text) = scene
        .push(&["--push-option=cutover.no-cache", "main"])
        .await;
    assert!(good && text.contains("remote: live"), "{text}");
    assert!(scene.pushed()[0].no_cache);
    scene.commit("three");
    let (_end, wait) = oneshot::channel();
    *scene.log.lock().unwrap() = Some(wait);
    let (good, text) = scene
        .push(&["--push-option=cutover.wait=false", "main"])
        .await;
    assert!(
        good && text.contains("remote: see `cutover show d"),
        "{text}"
    );
    assert!(!text.contains("live"), "{text}");
    assert_eq!(scene.pushed().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_ref_is_named_and_the_pusher_is_known() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let (good, text) = scene.push(&["main:next", "main"]).await;
    assert!(good, "{text}");
    for line in [
        "remote: refs/heads/next: not deployed: left out",
        "remote: refs/heads/main: deployment `d",
        "remote: live",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let pushed = scene.pushed();
    assert_eq!(pushed.len(), 2);
    let pusher = Requester::GitHttp {
        token: "admin".to_owned(),
        user: Some("ann".to_owned()),
        from: None,
    };
    assert!(pushed.iter().all(|push| push.requested_by == pusher));
    scene.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_is_not_ours_does_not_keep_a_push_from_being_deployed() {
    use std::os::unix::fs::PermissionsExt;
    let Some(scene) = Scene::new().await else {
        return;
    };
    assert!(scene.push(&["main"]).await.0);
    scene.pushed();
    let hooks = scene.folder.path().join("repos/hello.git/hooks");
    std::fs::create_dir_all(&hooks).unwrap();
    let hook = hooks.join("post-receive");
    std::fs::write(&hook, "#!/bin/sh\necho thank you\n").unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    scene.commit("two");
    let (good, text) = scene.push(&["main"]).await;
    for line in ["remote: thank you", "remote: live"] {
        assert!(good && text.contains(line), "{text}");
    }
    assert_eq!(scene.pushed().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_only_read_can_fetch_and_not_push() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    assert!(scene.push(&["main"]).await.0);
    let url = format!("http://ann:reader@{}/git/hello.git", scene.address);
    let (good, text) = run(scene.work(), vec!["fetch".into(), url.clone()]).await;
    assert!(good, "{text}");
    scene.commit("two");
    let (good, text) = run(scene.work(), vec!["push".into(), url, "main".into()]).await;
    assert!(!good && text.contains("this needs `deploy`"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_hook_can_refuse() {
    use std::os::unix::fs::PermissionsExt;
    let Some(scene) = Scene::new().await else {
        return;
    };
    assert!(scene.push(&["main"]).await.0);
    let hook = scene
        .folder
        .path()
        .join("repos/hello.git/hooks/pre-receive");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\necho not on Fridays\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    scene.pushed();
    scene.commit("two");
    let (good, text) = scene.push(&["main"]).await;
    assert!(!good && text.contains("remote: not on Fridays"), "{text}");
    assert!(text.contains("pre-receive hook declined"), "{text}");
    assert!(scene.pushed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_of_a_policy_takes_no_forced_push() {
    use std::os::unix::fs::PermissionsExt;
    let Some(scene) = Scene::new().await else {
        return;
    };
    assert!(scene.push(&["main"]).await.0);
    let repository = scene.folder.path().join("repos/hello.git");
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks/pre-receive");
    std::fs::create_dir_all(repository.join("hooks")).unwrap();
    let hook = repository.join("hooks/pre-receive");
    std::fs::copy(sample, &hook).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    // Whatever day it is.
    std::fs::write(repository.join("allow-friday"), "").unwrap();
    scene.commit("two");
    assert!(scene.push(&["main"]).await.0);
    scene.git(&["reset", "-q", "--hard", "HEAD~1"]);
    scene.commit("another two");
    scene.pushed();
    let (good, text) = scene.push(&["--force", "main"]).await;
    assert!(
        !good && text.contains("forced pushes are not accepted"),
        "{text}"
    );
    assert!(scene.pushed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pusher_that_hangs_up_in_the_middle_of_the_log_stops_nothing() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let (end, wait) = oneshot::channel();
    *scene.log.lock().unwrap() = Some(wait);
    let mut push = command(&scene.work())
        .args(["push", "-q", &scene.url("hello"), "main"])
        .spawn()
        .unwrap();
    let far = std::time::Instant::now() + Duration::from_secs(20);
    while scene.pushes.lock().unwrap().is_empty() {
        assert!(std::time::Instant::now() < far, "the push did not arrive");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    push.kill().unwrap();
    push.wait().unwrap();
    end.send(()).unwrap();
    scene.commit("two");
    let (good, text) = scene.push(&["main"]).await;
    assert!(good && text.contains("remote: live"), "{text}");
    assert_eq!(scene.pushed().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shallow_clone_is_told_what_to_do() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    scene.commit("two");
    let shallow = scene.folder.path().join("shallow");
    let url = format!("file://{}", scene.work().display());
    let clone = ["clone", "-q", "--depth", "1", &url, "shallow"];
    let made = command(scene.folder.path()).args(clone).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let push = ["push", &scene.url("hello"), "HEAD:main"].map(str::to_owned);
    let (good, text) = run(shallow.clone(), push.to_vec()).await;
    assert!(!good, "{text}");
    assert!(text.contains("git fetch --unshallow"), "{text}");
    assert!(text.contains("fetch-depth: 0"), "{text}");
    let whole = ["fetch", "-q", "--unshallow"].map(str::to_owned);
    assert!(run(shallow.clone(), whole.to_vec()).await.0);
    let (good, text) = run(shallow, push.to_vec()).await;
    assert!(good, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_old_histories_are_taken_and_harmful_ones_are_not() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    // git itself does not write such objects any more.
    let object = |kind: &str, content: &[u8]| {
        let path = scene.folder.path().join("object");
        std::fs::write(&path, content).unwrap();
        let path = path.to_str().unwrap();
        let made = scene.git(&["hash-object", "-t", kind, "-w", "--literally", path]);
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    };
    let bytes = |id: &str| hex::decode(id).unwrap();
    let blob = object("blob", b"x");
    let inner = object("tree", &[b"100644 x\0", &bytes(&blob)[..]].concat());
    let commit = |tree: &str, who: &str| {
        let text = format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nodd\n");
        object("commit", text.as_bytes())
    };
    let padded = object("tree", &[b"040000 folder\0", &bytes(&inner)[..]].concat());
    let odd = commit(&padded, "Ann <ann@example.com> 1300000000 +051800");
    let (good, text) = scene.push(&[&format!("{odd}:refs/heads/main")]).await;
    assert!(good, "{text}");
    // What was taken can be deployed.
    let path = scene.folder.path().join("repos/hello.git");
    let message = cutover::source::message(&path, &odd.parse().unwrap());
    assert_eq!(message.as_deref(), Some("odd\n"));
    let evil = object("tree", &[b"40000 .git\0", &bytes(&inner)[..]].concat());
    let evil = commit(&evil, "Ann <ann@example.com> 1300000000 +0000");
    let (good, text) = scene
        .push(&["-f", &format!("{evil}:refs/heads/main")])
        .await;
    assert!(!good && text.contains("hasDotgit"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_deployed_from_takes_no_push_and_says_why() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let path = scene.folder.path().join("repos/hello.git");
    std::fs::create_dir(scene.folder.path().join("repos")).unwrap();
    for (options, why) in [
        (vec!["--bare", "--object-format=sha256"], "SHA-256"),
        (vec!["--bare", "--ref-format=reftable"], "git refs migrate"),
        (vec![], "it is a work tree"),
    ] {
        let made = command(scene.folder.path())
            .args([vec!["init", "-q"], options, vec!["repos/hello.git"]].concat())
            .output()
            .unwrap();
        if !made.status.success() {
            eprintln!("skipped: this git knows no such repository");
            continue;
        }
        let (good, text) = scene.push(&["main"]).await;
        assert!(!good && text.contains(why), "{text}");
        assert!(scene.pushed().is_empty());
        std::fs::remove_dir_all(&path).unwrap();
    }
}
