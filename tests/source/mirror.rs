//! Commits from real repositories: what is asked for is what comes, or the error says why.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::tool;
use cutover::config::{Repo, Source};
use cutover::ids::CommitId;
use cutover::source::{Changed, Commit, Mirror, Revision, SourceError};
use git2::{Oid, Repository, Signature, Time};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::remote;

/// A bare repository, a server of it, and the folder in which its mirror is made.
struct Scene {
    folder: TempDir,
    origin: Repository,
    server: Runtime,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let origin = Repository::init_bare(folder.path().join("origin.git")).unwrap();
        let server = Runtime::new().unwrap();
        Self {
            folder,
            origin,
            server,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("origin.git")
    }

    /// The repository where it stands.
    fn local(&self) -> Mirror {
        self.mirror_of(Repo::Local(self.path()))
    }

    /// A mirror of the repository, which is served over http.
    fn mirror(&self) -> Mirror {
        let address = self.server.block_on(remote::http(self.folder.path(), None));
        self.mirror_of(Repo::Http(format!("http://{address}/origin.git")))
    }

    fn both(&self) -> [Mirror; 2] {
        [self.local(), self.mirror()]
    }

    fn mirror_of(&self, repo: Repo) -> Mirror {
        Mirror::new(self.mirror_path(), repo, Source::default())
    }

    fn mirror_path(&self) -> PathBuf {
        self.folder.path().join("repos/app.git")
    }

    /// A commit on `branch`, upon its tip, with one file.
    fn commit(&self, branch: &str, text: &str) -> Oid {
        commit(&self.origin, branch, text)
    }
}

fn commit(git: &Repository, branch: &str, text: &str) -> Oid {
    let blob = git.blob(text.as_bytes()).unwrap();
    let mut tree = git.treebuilder(None).unwrap();
    tree.insert("file", blob, 0o100644).unwrap();
    let tree = git.find_tree(tree.write().unwrap()).unwrap();
    let name = format!("refs/heads/{branch}");
    let parent = (git.find_reference(&name).ok()).map(|tip| tip.peel_to_commit().unwrap());
    // An hour after the commit before it.
    let time = (parent.as_ref()).map_or(1_700_000_000, |parent| parent.time().seconds() + 3600);
    let who = Signature::new("Ann", "ann@example.com", &Time::new(time, 60)).unwrap();
    let message = format!("{text}\n\nmore");
    let parents: Vec<_> = parent.iter().collect();
    git.commit(Some(&name), &who, &who, &message, &tree, &parents)
        .unwrap()
}

fn fetch(mirror: &Mirror, revision: &Revision) -> Result<Commit, SourceError> {
    let deadline = Instant::now() + Duration::from_secs(30);
    mirror.fetch(revision, &|_| {}, &CancellationToken::new(), deadline)
}

fn branch(name: &str) -> Revision {
    Revision::Branch(name.into())
}

fn named(name: &str) -> Revision {
    Revision::Named(name.into())
}

fn exactly(id: Oid) -> Revision {
    Revision::Commit(id.to_string().parse().unwrap())
}

#[test]
fn the_tip_of_a_branch_is_fetched_and_described() {
    let scene = Scene::new();
    let mut tip = scene.commit("main", "one");
    for mirror in scene.both() {
        let found = fetch(&mirror, &branch("main")).unwrap();
        assert_eq!(found.id.as_str(), tip.to_string());
        let commit = scene.origin.find_commit(tip).unwrap();
        assert_eq!(found.message, commit.summary().unwrap().unwrap());
        assert_eq!(found.author, "Ann");
        assert_eq!(found.time.unix_timestamp(), commit.time().seconds());
        assert_eq!(found.tree, commit.tree_id().to_string());
        let whole = mirror.message(&found.id).unwrap();
        assert_eq!(whole, commit.message().unwrap());

        tip = scene.commit("main", "two");
        let found = fetch(&mirror, &branch("main")).unwrap();
        assert_eq!(found.id.as_str(), tip.to_string());
    }
}

#[test]
fn a_mirror_holds_the_wanted_commit_without_its_past_and_the_other_branches() {
    let scene = Scene::new();
    let first = scene.commit("main", "one");
    scene.commit("main", "two");
    let third = scene.commit("main", "three");
    let other = scene.commit("other", "four");
    let mirror = scene.mirror();
    fetch(&mirror, &branch("main")).unwrap();
    let has = |id| {
        Repository::open_bare(scene.mirror_path())
            .unwrap()
            .odb()
            .unwrap()
            .exists(id)
    };
    assert!(has(third) && !has(first) && !has(other));
    // Whoever asks for them by name gets them all the same.
    for id in [other, first] {
        let short = named(&id.to_string()[..10]);
        let found = fetch(&mirror, &short).unwrap();
        assert_eq!(found.id.as_str(), id.to_string());
    }
    let fifth = scene.commit("main", "five");
    let found = fetch(&mirror, &branch("main")).unwrap();
    assert_eq!(found.id.as_str(), fifth.to_string());
}

#[test]
fn what_the_app_does_not_deploy_may_be_broken() {
    let scene = Scene::new();
    let tip = scene.commit("main", "one");
    let side = scene.commit("side", "lost");
    let lost = scene.origin.find_commit(side).unwrap().tree().unwrap();
    let lost = lost.get(0).unwrap().id().to_string();
    fs::remove_file(
        scene
            .path()
            .join("objects")
            .join(&lost[..2])
            .join(&lost[2..]),
    )
    .unwrap();
    let nowhere = "0123456789abcdef0123456789abcdef01234567\n";
    fs::write(scene.path().join("refs/tags/broken"), nowhere).unwrap();
    fs::write(scene.path().join("refs/tags/garbage"), "garbage").unwrap();
    for mirror in scene.both() {
        let said = std::cell::RefCell::new(String::new());
        let say = |line: &str| said.borrow_mut().push_str(line);
        let deadline = Instant::now() + Duration::from_secs(30);
        let found = mirror.fetch(&branch("main"), &say, &CancellationToken::new(), deadline);
        assert_eq!(found.unwrap().id.as_str(), tip.to_string());
        // git itself does not even speak of them over the network.
        let said = said.into_inner();
        let is_local = !said.contains("fetched");
        assert_eq!(
            said.contains("warning: `refs/tags/broken`"),
            is_local,
            "{said}"
        );
    }
    let error = fetch(&scene.local(), &Revision::Tag("broken".into())).unwrap_err();
    assert!(
        matches!(error, SourceError::RepositoryDamaged { .. }),
        "{error}"
    );
}

#[test]
fn what_libgit2_cannot_read_is_not_unreachable() {
    let scene = Scene::new();
    for (setting, what) in [
        ("[extensions]\n\tobjectformat = sha256\n", "SHA-256"),
        (
            "[extensions]\n\trefstorage = reftable\n",
            "git refs migrate",
        ),
    ] {
        let config = format!("[core]\n\trepositoryformatversion = 1\n\tbare = true\n{setting}");
        fs::write(scene.path().join("config"), config).unwrap();
        let error = fetch(&scene.local(), &branch("main")).unwrap_err();
        assert!(matches!(error, SourceError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn long_ids_of_a_server_are_not_unreachable() {
    let scene = Scene::new();
    let path = scene.path();
    fs::remove_dir_all(&path).unwrap();
    let script = "git init -q --bare --object-format=sha256 -b main . && \
                  tip=$(git -c user.name=a -c user.email=a@b commit-tree -m x $(git mktree </dev/null)) && \
                  git update-ref refs/heads/main $tip";
    fs::create_dir(&path).unwrap();
    let mut made = std::process::Command::new("sh");
    let made = made
        .args(["-c", script])
        .current_dir(&path)
        .status()
        .unwrap();
    assert!(made.success());
    for mirror in scene.both() {
        let error = fetch(&mirror, &branch("main")).unwrap_err();
        assert!(matches!(error, SourceError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("SHA-256"), "{error}");
    }
}

#[test]
fn a_server_that_cannot_leave_the_history_out_is_fetched_from_all_the_same() {
    let scene = Scene::new();
    scene.commit("main", "one");
    let tip = scene.commit("main", "two");
    let path = scene.folder.path().join("no-shallow.git");
    fs::rename(scene.path(), path).unwrap();
    let address = scene
        .server
        .block_on(remote::http(scene.folder.path(), None));
    let mirror = scene.mirror_of(Repo::Http(format!("http://{address}/no-shallow.git")));
    let found = fetch(&mirror, &branch("main")).unwrap();
    assert_eq!(found.id.as_str(), tip.to_string());
}

#[test]
fn a_commit_that_makes_no_sense_is_not_unreachable() {
    let scene = Scene::new();
    scene.commit("main", "one");
    let odb = scene.origin.odb().unwrap();
    let tree = odb.write(git2::ObjectType::Tree, b"nonsense").unwrap();
    let who = "Ann <ann@example.com> 1700000000 +0000";
    let commit = format!("tree {tree}\nauthor {who}\ncommitter {who}\n\none\n");
    let commit = odb
        .write(git2::ObjectType::Commit, commit.as_bytes())
        .unwrap();
    fs::write(scene.path().join("refs/heads/main"), format!("{commit}\n")).unwrap();
    let error = fetch(&scene.local(), &branch("main")).unwrap_err();
    assert!(
        matches!(error, SourceError::RepositoryDamaged { .. }),
        "{error}"
    );
    // git gives up on the other side.
    let away = fetch(&scene.mirror(), &branch("main")).unwrap_err();
    assert!(matches!(away, SourceError::BrokeOff { .. }), "{away}");
    for error in [error, away] {
        assert!(error.hint().contains("git fsck"), "{}", error.hint());
    }
}

#[test]
fn a_repository_names_its_default_branch() {
    let scene = Scene::new();
    scene.commit("trunk", "one");
    scene.origin.set_head("refs/heads/trunk").unwrap();
    let soon = || Instant::now() + Duration::from_secs(10);
    for mirror in scene.both() {
        let name = mirror.default_branch(soon());
        assert_eq!(name.as_deref(), Some("trunk"));
    }
    let gone = scene.mirror_of(Repo::Local(scene.folder.path().join("gone.git")));
    assert_eq!(gone.default_branch(soon()), None);
}

#[test]
fn a_work_tree_is_read_as_the_repository_that_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let git = Repository::init(folder.path().join("app")).unwrap();
    let tip = commit(&git, "main", "one");
    let repo = Repo::Local(folder.path().join("app"));
    let mirror = Mirror::new(folder.path().join("m.git"), repo, Source::default());
    let found = fetch(&mirror, &branch("main")).unwrap();
    assert_eq!(found.id.as_str(), tip.to_string());
}

#[test]
fn a_person_names_a_branch_a_tag_or_digits_of_a_commit() {
    let scene = Scene::new();
    let first = scene.commit("main", "one");
    let second = scene.commit("feature/x", "two");
    let who = Signature::now("Ann", "ann@example.com").unwrap();
    let object = scene.origin.find_object(first, None).unwrap();
    let tag = (scene.origin.tag("v1", &object, &who, "annotated", false)).unwrap();
    // A tag and a branch of one name: the branch is meant.
    (scene.origin.tag_lightweight("feature/x", &object, false)).unwrap();
    let alias = "refs/heads/alias";
    (scene
        .origin
        .reference_symbolic(alias, "refs/heads/main", false, ""))
    .unwrap();
    let nowhere = "refs/heads/nowhere";
    (scene
        .origin
        .reference_symbolic(nowhere, "refs/heads/gone", false, ""))
    .unwrap();
    for mirror in scene.both() {
        let id = |revision: &Revision| fetch(&mirror, revision).unwrap().id.as_str().to_owned();
        assert_eq!(id(&named("v1")), first.to_string());
        assert_eq!(id(&branch("alias")), first.to_string());
        assert_eq!(id(&named("feature/x")), second.to_string());
        assert_eq!(id(&named("refs/tags/feature/x")), first.to_string());
        assert_eq!(id(&named("refs/heads/feature/x")), second.to_string());
        assert_eq!(id(&Revision::Tag("feature/x".into())), first.to_string());
        assert_eq!(id(&named(&first.to_string()[..7])), first.to_string());
        assert_eq!(id(&named(&second.to_string())), second.to_string());
        assert_eq!(id(&exactly(first)), first.to_string());
        // As a push of an annotated tag names it.
        assert_eq!(id(&exactly(tag)), first.to_string());
    }
}

#[test]
fn what_is_not_there_is_named_in_the_error() {
    let scene = Scene::new();
    let first = scene.commit("main", "one");
    for mirror in scene.both() {
        let error = |revision: &Revision| fetch(&mirror, revision).unwrap_err();
        let nowhere = error(&branch("nope"));
        assert!(
            matches!(nowhere, SourceError::NoSuchRef { .. }),
            "{nowhere}"
        );
        assert!(
            nowhere.to_string().ends_with("has no branch `nope`"),
            "{nowhere}"
        );
        // A branch in whose way `main` stands.
        assert!(matches!(
            error(&branch("main/x")),
            SourceError::NoSuchRef { .. }
        ));
        let other = Oid::from_str("0123456789abcdef0123456789abcdef01234567").unwrap();
        assert!(matches!(
            error(&exactly(other)),
            SourceError::NoSuchCommit { .. }
        ));
        // The id of a folder is no commit.
        let tree = scene.origin.find_commit(first).unwrap().tree_id();
        assert!(matches!(
            error(&exactly(tree)),
            SourceError::NoSuchCommit { .. }
        ));
        assert!(matches!(
            error(&named("0123456")),
            SourceError::NoSuchRef { .. }
        ));
        // Text that revparse would follow.
        for text in [
            "main~0",
            "main^{tree}",
            "HEAD@{1}",
            ":/one",
            "",
            "-x\0",
            "a..b",
            "main:file",
        ] {
            let refused = error(&named(text));
            assert!(
                matches!(refused, SourceError::InvalidRef(_)),
                "{text}: {refused}"
            );
        }
    }
}

#[test]
fn an_empty_and_a_missing_repository_say_so() {
    let scene = Scene::new();
    for mirror in scene.both() {
        let error = fetch(&mirror, &branch("main")).unwrap_err();
        assert!(matches!(error, SourceError::Empty { .. }), "{error}");
    }
    let gone = scene.mirror_of(Repo::Local(scene.folder.path().join("gone.git")));
    let error = fetch(&gone, &branch("main")).unwrap_err();
    assert!(matches!(error, SourceError::Unreachable { .. }), "{error}");
    let closed = scene.mirror_of(Repo::Http("http://127.0.0.1:1/x.git".into()));
    let error = fetch(&closed, &branch("main")).unwrap_err();
    assert!(matches!(error, SourceError::Unreachable { .. }), "{error}");
    // What could not be fetched leaves nothing behind that looks like a mirror.
    assert!(!scene.mirror_path().exists());
}

#[test]
fn forced_pushes_deleted_branches_and_branches_that_become_folders_are_followed() {
    let scene = Scene::new();
    let first = scene.commit("a", "one");
    scene.commit("main", "x");
    let mirror = scene.mirror();
    fetch(&mirror, &branch("a")).unwrap();
    (scene.origin.find_reference("refs/heads/a").unwrap())
        .delete()
        .unwrap();
    let under = scene.commit("a/b", "two");
    let found = fetch(&mirror, &branch("a/b")).unwrap();
    assert_eq!(found.id.as_str(), under.to_string());
    let error = fetch(&mirror, &branch("a")).unwrap_err();
    assert!(matches!(error, SourceError::NoSuchRef { .. }), "{error}");
    (scene
        .origin
        .reference("refs/heads/main", first, true, "forced"))
    .unwrap();
    let found = fetch(&mirror, &branch("main")).unwrap();
    assert_eq!(found.id.as_str(), first.to_string());
}

#[test]
fn a_damaged_or_half_made_mirror_is_made_again() {
    let scene = Scene::new();
    let first = scene.commit("main", "one");
    let mirror = scene.mirror();
    fetch(&mirror, &branch("main")).unwrap();
    let path = scene.mirror_path();
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 5] = [
        ("objects gone", |p| {
            fs::remove_dir_all(p.join("objects/pack")).unwrap()
        }),
        ("no HEAD", |p| fs::remove_file(p.join("HEAD")).unwrap()),
        ("config broken", |p| {
            fs::write(p.join("config"), "[[[").unwrap()
        }),
        ("only a file", |p| {
            fs::remove_dir_all(p).unwrap();
            fs::create_dir(p).unwrap();
            fs::write(p.join("HEAD"), "ref: refs/heads/main").unwrap();
        }),
        ("packs cut", |p| {
            for pack in fs::read_dir(p.join("objects/pack")).unwrap() {
                let pack = pack.unwrap().path();
                fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o644))
                    .unwrap();
                fs::write(pack, "PACK").unwrap();
            }
        }),
    ];
    for (what, damage) in damages {
        damage(&path);
        fs::create_dir_all(scene.folder.path().join("repos/app.git.making/refs")).unwrap();
        let found = fetch(&mirror, &branch("main"));
        assert!(found.is_ok(), "{what}: {}", found.unwrap_err());
        assert_eq!(found.unwrap().id.as_str(), first.to_string(), "{what}");
        assert!(!scene.folder.path().join("repos/app.git.making").exists());
    }
}

#[test]
fn locks_that_a_killed_fetch_left_do_not_stand_in_the_way() {
    let scene = Scene::new();
    scene.commit("main", "one");
    let mirror = scene.mirror();
    fetch(&mirror, &branch("main")).unwrap();
    let second = scene.commit("main", "two");
    fs::write(scene.mirror_path().join("refs/heads/main.lock"), "").unwrap();
    let found = fetch(&mirror, &branch("main")).unwrap();
    assert_eq!(found.id.as_str(), second.to_string());
}

#[test]
fn cancelling_and_the_deadline_end_a_fetch() {
    let scene = Scene::new();
    scene.commit("main", "one");
    let mirror = scene.mirror();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let far = Instant::now() + Duration::from_secs(30);
    let error = (mirror.fetch(&branch("main"), &|_| {}, &cancel, far)).unwrap_err();
    assert!(matches!(error, SourceError::Cancelled), "{error}");
    let (free, now) = (CancellationToken::new(), Instant::now());
    let error = (mirror.fetch(&branch("main"), &|_| {}, &free, now)).unwrap_err();
    assert!(matches!(error, SourceError::TimedOut { .. }), "{error}");
}

#[test]
fn several_fetches_of_one_mirror_wait_for_each_other() {
    let scene = Scene::new();
    let tip = scene.commit("main", "one");
    let mirror = scene.mirror();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let found = fetch(&mirror, &branch("main")).unwrap();
                assert_eq!(found.id.as_str(), tip.to_string());
            });
        }
    });
}

#[test]
fn a_repository_of_another_user_is_read() {
    let scene = Scene::new();
    let tip = scene.commit("main", "one");
    let nobody = Some(65_534);
    let mut folders = vec![scene.path()];
    while let Some(path) = folders.pop() {
        if std::os::unix::fs::chown(&path, nobody, nobody).is_err() {
            tool::skip("only root can give a repository to another user");
            return;
        }
        if path.is_dir() {
            folders.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    let found = fetch(&scene.local(), &branch("main")).unwrap();
    assert_eq!(found.id.as_str(), tip.to_string());
}

#[test]
fn changed_paths_compares_two_trees_without_what_lies_between() {
    let scene = Scene::new();
    let first = scene.commit("main", "one");
    let side = scene.commit("other", "one");
    let mirror = scene.mirror();
    fetch(&mirror, &branch("main")).unwrap();
    scene.commit("main", "two");
    let third = scene.commit("main", "three");
    fetch(&mirror, &branch("main")).unwrap();
    fetch(&mirror, &branch("other")).unwrap();
    let id = |oid: Oid| oid.to_string().parse().unwrap();
    let [root, side, tip]: [CommitId; 3] = [first, side, third].map(id);
    let paths = |old: &CommitId, new: &CommitId| match mirror.changed_paths(old, new).unwrap() {
        Changed::Paths(paths) => paths,
        Changed::TooMuch => panic!("too much"),
    };
    assert_eq!(paths(&root, &tip), ["file"]);
    assert!(paths(&root, &root).is_empty());
    // Unrelated histories are compared all the same: what counts is the trees.
    assert!(paths(&root, &side).is_empty());
    let unknown: CommitId = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
    assert!(mirror.changed_paths(&unknown, &tip).is_err());
}

/// Commits a tree of these entries (name, id, mode) to `main`.
fn commit_tree(git: &Repository, entries: &[(&str, Oid, i32)]) -> CommitId {
    let tree = git.find_tree(tree_of(git, entries)).unwrap();
    let parent = git.find_reference("refs/heads/main").ok();
    let parent = parent.map(|tip| tip.peel_to_commit().unwrap());
    let parents: Vec<_> = parent.iter().collect();
    let who = Signature::now("Ann", "ann@example.com").unwrap();
    let id = git.commit(Some("refs/heads/main"), &who, &who, "x", &tree, &parents);
    id.unwrap().to_string().parse().unwrap()
}

fn tree_of(git: &Repository, entries: &[(&str, Oid, i32)]) -> Oid {
    let mut tree = git.treebuilder(None).unwrap();
    for (name, id, mode) in entries {
        tree.insert(name, *id, *mode).unwrap();
    }
    tree.write().unwrap()
}

#[test]
fn every_kind_of_change_is_a_changed_path() {
    let (file, program, folder) = (0o100644, 0o100755, 0o040000);
    let scene = Scene::new();
    let git = &scene.origin;
    let [a, b] = ["a", "b"].map(|text| git.blob(text.as_bytes()).unwrap());
    let deep = |leaf| {
        let inner = tree_of(git, &[("leaf", leaf, file), ("same", a, file)]);
        tree_of(git, &[("inner", inner, folder), ("same", a, file)])
    };
    let old = commit_tree(
        git,
        &[
            ("a", a, file),
            ("a-b", a, file),
            ("gone", deep(a), folder),
            ("kept", deep(a), folder),
            ("mode", a, file),
        ],
    );
    let mirror = scene.mirror();
    fetch(&mirror, &branch("main")).unwrap();
    let new = commit_tree(
        git,
        &[
            // A file becomes a folder; `a-b` is sorted between the two.
            ("a", deep(a), folder),
            ("a-b", a, file),
            ("kept", deep(b), folder),
            ("mode", a, program),
            ("new", b, file),
        ],
    );
    fetch(&mirror, &branch("main")).unwrap();
    let all = [
        "a",
        "a/inner/leaf",
        "a/inner/same",
        "a/same",
        "gone/inner/leaf",
        "gone/inner/same",
        "gone/same",
        "kept/inner/leaf",
        "mode",
        "new",
    ];
    let all = Changed::Paths(all.map(String::from).to_vec());
    assert_eq!(mirror.changed_paths(&old, &new).unwrap(), all);
}

/// Ten trees of ten entries each, every one the tree below, with or without a file at the bottom: 10^10
/// paths.
#[test]
fn what_is_too_much_to_compare_is_given_up_in_time() {
    let scene = Scene::new();
    let git = &scene.origin;
    let blob = git.blob(b"x").unwrap();
    let names: Vec<String> = (0..10).map(|name| name.to_string()).collect();
    let bomb = |bottom: Oid| {
        (0..10).fold(bottom, |below, _| {
            let all: Vec<_> = (names.iter())
                .map(|name| (name.as_str(), below, 0o040000))
                .collect();
            tree_of(git, &all)
        })
    };
    let mirror = scene.mirror();
    for bottom in [tree_of(git, &[]), tree_of(git, &[("x", blob, 0o100644)])] {
        let old = commit_tree(git, &[("x", blob, 0o100644)]);
        fetch(&mirror, &branch("main")).unwrap();
        let new = commit_tree(git, &[("bomb", bomb(bottom), 0o040000)]);
        fetch(&mirror, &branch("main")).unwrap();
        let begun = Instant::now();
        let changed = mirror.changed_paths(&old, &new).unwrap();
        assert_eq!(changed, Changed::TooMuch);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(30), "{took:?}");
    }
}

#[test]
fn a_mirror_of_many_packs_is_made_anew() {
    let scene = Scene::new();
    let first = scene.commit("main", "first");
    scene.commit("other", "other");
    let who = Signature::now("Ann", "ann@example.com").unwrap();
    let object = scene.origin.find_object(first, None).unwrap();
    (scene.origin.tag("v1", &object, &who, "annotated", false)).unwrap();
    let mirror = scene.mirror();
    let packs = scene.mirror_path().join("objects/pack");
    let count = || fs::read_dir(&packs).map_or(0, |files| files.count() / 2);
    let (mut most, mut last) = (0, first);
    for i in 0..105 {
        last = scene.commit("main", &format!("{i}"));
        fetch(&mirror, &branch("main")).unwrap();
        most = most.max(count());
    }
    assert!(most <= 100 && count() < 10, "{most}, then {}", count());
    for revision in [branch("other"), Revision::Tag("v1".into()), exactly(last)] {
        fetch(&mirror, &revision).unwrap();
    }
}

/// Figures, not a promise: `cargo test --release --test source -- --ignored --nocapture measure`.
#[test]
#[ignore = "prints figures"]
fn measure() {
    let scene = Scene::new();
    for i in 0..500 {
        scene.commit("main", &format!("{i}"));
        if i % 10 == 0 {
            scene.commit(&format!("branch{i}"), "x");
        }
    }
    let mirror = scene.mirror();
    let start = Instant::now();
    fetch(&mirror, &branch("main")).unwrap();
    println!(
        "first fetch, 500 commits, 51 branches: {:?}",
        start.elapsed()
    );
    for _ in 0..5 {
        scene.commit("main", "new");
        let start = Instant::now();
        let found = fetch(&mirror, &branch("main")).unwrap();
        let fetched = start.elapsed();
        let start = Instant::now();
        fetch(&mirror, &branch("main")).unwrap();
        let unchanged = start.elapsed();
        let start = Instant::now();
        mirror.message(&found.id).unwrap();
        println!(
            "one commit {fetched:?}, unchanged {unchanged:?}, read {:?}",
            start.elapsed()
        );
    }
}
